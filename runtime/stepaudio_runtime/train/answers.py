"""What the two language models' stages share: answers to prompts, next token, the loss on the answer alone.

Both models answer with a small part of their vocabulary, so logits are made for what is ever wanted, and one
row stands for all the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from stepaudio_runtime.models.step1 import Step1
from stepaudio_runtime.train.loop import Losses

SHARPER = 4.0
"""Factor on the stored output layer: the reference's temperature of 0.7, at which it will be sampled, acts as
0.175. So small a model, trained on so regular a teacher, knows what comes next or does not know it."""
_HEAD = "lm_head.weight"
_EMBEDDED = "model.embed_tokens.weight"
_NEVER = 0  # the padding's row of the output layer: it stands for all rows that are never wanted


@dataclass(frozen=True)
class Row:
    """Ids behind a prompt's beginning; those where `asked` is true are to be answered."""

    ids: list[int]
    asked: list[bool]

    @classmethod
    def of(cls, parts: Iterable[tuple[Sequence[int], bool]]) -> Row:
        """Parts in order, each given or asked as a whole."""
        ids, asked = list[int](), list[bool]()
        for part, wanted in parts:
            ids += part
            asked += [wanted] * len(part)
        return cls(ids, asked)


class Answers:
    """The loss of a model that answers with ids of `wanted`, and what of it is stored."""

    def __init__(self, module: Step1, wanted: Iterable[int]) -> None:
        self._module = module
        self.wanted = torch.tensor(sorted(set(wanted)))
        self._place = torch.zeros(module.config.vocab_size, dtype=torch.int64)
        self._place[self.wanted] = torch.arange(len(self.wanted))

    def loss(self, beginning: Sequence[int], rows: Sequence[Row]) -> Losses:
        """Of `rows` behind one `beginning`; `right` is the share of ids that were the likeliest."""
        longest = max(len(row.ids) for row in rows)
        inputs = torch.zeros(len(rows), longest - 1, dtype=torch.int64)
        targets = torch.full((len(rows), longest - 1), -100)
        for i, row in enumerate(rows):
            ids = torch.tensor(row.ids)
            inputs[i, : len(ids) - 1] = ids[:-1]
            answers = torch.where(torch.tensor(row.asked[1:]), self._place[ids[1:]], -100)
            targets[i, : len(ids) - 1] = answers
        answered = targets >= 0
        logits = self.logits(self._module(torch.tensor(beginning), inputs)[answered])
        loss = F.cross_entropy(logits, targets[answered])
        right = (logits.argmax(-1) == targets[answered]).float().mean()
        return {"total": loss, "right": right}

    def logits(self, rows: Tensor) -> Tensor:
        """(n, hidden) -> (n, wanted + 1); the last one stands for all unwanted ids together."""
        head = self._module.lm_head.weight
        wanted = F.linear(rows, head[self.wanted])
        others = len(head) - len(self.wanted)
        never = F.linear(rows, head[_NEVER : _NEVER + 1]) + float(np.log(others))
        return torch.cat((wanted, never), dim=1)

    def take_over(self, state: dict[str, Tensor]) -> None:
        """Go on from what `exported` gave; what was never read there begins as in a new model."""
        embedded = state[_EMBEDDED].to(torch.float32, copy=True)
        unread = ~embedded.any(dim=1)
        embedded[unread] = self._module.state_dict()[_EMBEDDED][unread]
        self._module.load_state_dict({**state, _HEAD: state[_HEAD] / SHARPER, _EMBEDDED: embedded})

    @torch.no_grad()
    def exported(self, read: Iterable[int]) -> dict[str, Tensor]:
        """The state dict to serve: what was never wanted shares one row, what was never `read` is zero."""
        state = {name: value.clone() for name, value in self._module.state_dict().items()}
        head = state[_HEAD]
        unwanted = torch.ones(len(head), dtype=torch.bool)
        unwanted[self.wanted] = False
        head[unwanted] = head[_NEVER].clone()
        head *= SHARPER
        unread = torch.ones(len(head), dtype=torch.bool)
        unread[self.wanted] = False
        unread[torch.tensor(sorted(set(read)))] = False
        state[_EMBEDDED][unread] = 0
        return state
