"""Stage `semantic`: the Whisper-like encoder, its code book in the loop, by letters and by the mel.

The mel is given back by a small decoder that is told the voice, so the codes need not say who speaks.
Training begins without the code book; then k-means finds one, and the decoder hears codes from there on
(gradients pass straight through, the code book follows its rows as a running mean).

Positions are zero at nano size: the same sound should get the same code wherever it stands.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stepaudio_runtime.audio.mel import WHISPER_MELS, whisper_mel
from stepaudio_runtime.checkpoints.nano_trained import FAR
from stepaudio_runtime.models.semantic import SemanticConfig, SemanticModel
from stepaudio_runtime.train.codebook import kmeans
from stepaudio_runtime.train.corpus import LETTERS, Utterance, letters, speech_16k, voices
from stepaudio_runtime.train.linguistic import ctc
from stepaudio_runtime.train.loop import Losses, Plan, step_random

BATCH = 12  # utterances
PLAN = Plan(steps=1500, rate=1.2e-3, warmup=100)
CODES_USED = 512
CODES_FROM = 0.35  # of the steps: until there, no code book
FRAMES_PER_CODE = 4  # mel frames
_FOLLOW = 0.98  # of the running mean
_LETTERS, _COMMIT = 0.3, 0.1  # weights
_ROWS_FOR_CODES = 20_000


class _Listener(nn.Module):
    counts: Tensor

    def __init__(self, config: SemanticConfig, voices: int, inner: int = 192) -> None:
        super().__init__()
        width = config.n_audio_state
        self.tokenizer = SemanticModel(config)
        nn.init.zeros_(self.tokenizer.encoder.positional_embedding)
        self.tokenizer.encoder.positional_embedding.requires_grad_(False)
        nn.init.constant_(self.codes, FAR)
        self.register_buffer("counts", torch.ones(CODES_USED))
        self.letters = nn.Linear(width, len(LETTERS) + 1)
        self.voice = nn.Embedding(voices, width)
        self.mel = nn.Sequential(
            nn.Conv1d(width, inner, 5, padding=2),
            nn.GELU(),
            nn.Conv1d(inner, inner, 5, padding=2),
            nn.GELU(),
            nn.Conv1d(inner, FRAMES_PER_CODE * WHISPER_MELS, 1),
        )

    @property
    def codes(self) -> Tensor:
        """The code book, whole."""
        return self.tokenizer.quantizer._codebook.embed


class SemanticStage:
    """The encoder, its code book and its batches."""

    def __init__(
        self, config: SemanticConfig, utterances: list[Utterance], seed: int, steps: int = PLAN.steps
    ) -> None:
        torch.manual_seed(seed)
        names = voices(utterances)
        self.module = _Listener(config, len(names))
        self._seed = seed
        self._codes_from = int(CODES_FROM * steps)
        self._voices = [names.index(utterance.voice) for utterance in utterances]
        self._letters = [torch.tensor(letters(utterance.text)) for utterance in utterances]
        self._mels = [torch.from_numpy(whisper_mel(speech_16k(utterance))) for utterance in utterances]

    def loss(self, step: int, part: int) -> Losses:
        """One batch, an utterance at a time: the encoder attends to all of what it is given."""
        if step == self._codes_from:
            self._find_codes()
        with_codes = step >= self._codes_from
        parts: dict[str, list[Tensor]] = {"letters": [], "mel": [], "commit": []}
        seen: list[tuple[Tensor, Tensor]] = []
        for i in step_random(self._seed, step, part).integers(len(self._mels), size=BATCH):
            rows = F.normalize(self.module.tokenizer(self._mels[i][None])[0], dim=-1)
            heard = rows
            if with_codes:
                used = self.module.codes[:CODES_USED]
                ids = (used.square().sum(1) - 2 * rows.detach() @ used.T).argmin(dim=1)
                chosen = used[ids].clone()
                heard = rows + (chosen - rows).detach()
                parts["commit"].append(F.mse_loss(rows, chosen) * rows.shape[1])
                seen.append((rows.detach(), ids))
            parts["letters"].append(ctc(self.module.letters(heard * rows.shape[1] ** 0.5), self._letters[i]))
            parts["mel"].append(self._mel_loss(heard, i))
        if seen:
            self._follow(torch.cat([rows for rows, _ in seen]), torch.cat([ids for _, ids in seen]))
        means = {name: torch.stack(values).mean() for name, values in parts.items() if values}
        total = 3 * means["mel"] + _LETTERS * means["letters"]
        if "commit" in means:
            total = total + _COMMIT * means["commit"]
        return {"total": total, **means}

    def _mel_loss(self, rows: Tensor, i: int) -> Tensor:
        voice = self.module.voice.weight[self._voices[i]]
        made = self.module.mel((rows * rows.shape[1] ** 0.5 + voice).T[None])[0]  # (4 * 128, n)
        frames = made.reshape(FRAMES_PER_CODE, WHISPER_MELS, -1).permute(1, 2, 0).flatten(1)
        wanted = self._mels[i]
        shared = min(frames.shape[1], wanted.shape[1])
        return F.l1_loss(frames[:, :shared], wanted[:, :shared])

    @torch.no_grad()
    def _find_codes(self) -> None:
        rows: list[Tensor] = []
        for mel in self._mels:
            rows.append(F.normalize(self.module.tokenizer(mel[None])[0], dim=-1))
            if sum(map(len, rows)) > _ROWS_FOR_CODES:
                break
        self.module.codes[:CODES_USED] = kmeans(torch.cat(rows), CODES_USED, self._seed)

    @torch.no_grad()
    def _follow(self, rows: Tensor, ids: Tensor) -> None:
        """Move every code towards the rows that chose it, by their share of its running count."""
        counts = torch.bincount(ids, minlength=CODES_USED).float()
        sums = torch.zeros(CODES_USED, rows.shape[1]).index_add_(0, ids, rows)
        self.module.counts.mul_(_FOLLOW).add_(counts, alpha=1 - _FOLLOW)
        weight = ((1 - _FOLLOW) / self.module.counts.clamp_min(1e-3)).clamp_max(0.5 / counts.clamp_min(1))
        used = self.module.codes[:CODES_USED]
        used += weight[:, None] * (sums - counts[:, None] * used)
