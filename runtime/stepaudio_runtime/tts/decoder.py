"""Codes to wave: one flow and one vocoder. Blocking; runs in the pod's worker thread.

stream = decoder.open(prompt, seed, plan)          one utterance
stream.push(codes, last=...)                       as they come from the language model
decoder.advance([stream, ...])                     one hop of each stream that is ready, together
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stepaudio_runtime.errors import InputError, OutputError
from stepaudio_runtime.models.flow import Flow, FlowItem, noise_at
from stepaudio_runtime.models.flow_graphs import FlowGraphs
from stepaudio_runtime.models.hift import Hift
from stepaudio_runtime.models.hift_graphs import VocoderGraphs
from stepaudio_runtime.models.hift_stream import MelPiece, VocoderStream, advance
from stepaudio_runtime.models.lengths import groups
from stepaudio_runtime.tts.hops import Hop, HopPlan

WASTE_CPU = 0.03  # share of a batch that may be padding
WASTE_GPU = 0.5
NOTHING: NDArray[np.float32] = np.zeros(0, np.float32)


@dataclass(frozen=True, eq=False)
class Prompt:
    """What the flow is told of a voice: codes (n), mel (1, frames, 80), speaker embedding (1, 192)."""

    codes: tuple[int, ...]
    mel: Tensor
    embedding: Tensor


class DecoderStream:
    """One utterance: codes in, hops out. State only; `SpeechDecoder.open` makes it, `advance` moves it on.

    To cancel, drop it: it holds nothing but its own tensors.
    """

    def __init__(
        self, prompt: Prompt, seed: int, plan: HopPlan, vocoder: VocoderStream, codes: range
    ) -> None:
        self.prompt = prompt
        self.seed = seed
        self.plan = plan
        self.vocoder = vocoder
        self.codes: list[int] = []
        self.mel = vocoder.mel  # (80, n): of the frames made so far, as many as the next hop sees
        self.spoken = 0  # codes
        self.done = False
        self._allowed = codes
        self._hops = 0
        self._last = False

    def push(self, codes: Sequence[int], *, last: bool) -> None:
        """Add codes; `last` where none follow. Raises InputError for a code that the flow does not know."""
        if self._last:
            raise ValueError("codes after the last ones")
        wrong = next((code for code in codes if code not in self._allowed), None)
        if wrong is not None:
            raise InputError(
                f"codes hold {wrong}, which is not in 0..{self._allowed.stop - 1}",
                param="codes",
                code="invalid_codes",
            )
        if last and not self.codes and not codes:
            raise InputError("no audio codes to speak", param="codes", code="empty_codes")
        self.codes += codes
        self._last = last
        self.done = last and self.spoken == len(self.codes)

    @property
    def hop(self) -> Hop | None:
        """The next hop, if it can be made now."""
        return self.plan.next_hop(self._hops, self.spoken, len(self.codes), last=self._last)

    @property
    def ready(self) -> bool:
        """Whether a hop can be made now."""
        return self.hop is not None

    def made(self, hop: Hop, mel: Tensor) -> bool:
        """Take in that `hop` was made and what `mel` the next one may see; true where it was the last."""
        self.mel = mel
        self.spoken = hop.stop
        self._hops += 1
        self.done = self._last and hop.stop == len(self.codes)
        return self.done


@dataclass(frozen=True, eq=False)
class _Window:
    """What the flow computes for one hop; `own` are the hop's own frames among those of the item's ids."""

    item: FlowItem
    noise: Tensor
    own: slice


class SpeechDecoder:
    """A flow and a vocoder on `device`.

    `dtype` is that of the flow's estimator, where nearly all of the time goes: float32 is exact, bfloat16 is
    what the reference computes in. The rest stays float32. `waste` bounds what padding may add to a batch of
    hops: little where the arithmetic is the limit (a CPU), much where starting it is (a GPU, a tiny model).
    With `graphs` (the default on a GPU) hops are computed by captured graphs; `warm` captures them all, else
    the first hop of its size does.
    """

    def __init__(
        self,
        flow: Flow,
        vocoder: Hift,
        device: torch.device,
        *,
        dtype: torch.dtype = torch.float32,
        waste: float | None = None,
        graphs: bool | None = None,
    ) -> None:
        self.flow = flow.to(device).eval()
        self.flow.decoder.estimator.to(dtype)
        self.vocoder = vocoder.to(device).eval()
        self.device = device
        self._vocoder_graphs: VocoderGraphs | None = None
        if device.type == "cuda":
            self.flow.decoder.estimator.fuse()
        if device.type == "cuda" if graphs is None else graphs:
            self.flow.graphs = FlowGraphs(self.flow)
            self._vocoder_graphs = VocoderGraphs(self.vocoder)
        self._waste = (WASTE_CPU if device.type == "cpu" else WASTE_GPU) if waste is None else waste

    def warm(self) -> None:
        """Capture every graph, where there are any."""
        with self._precision():
            for graphs in (self.flow.graphs, self._vocoder_graphs):
                if graphs is not None:
                    graphs.warm()

    def _precision(self) -> AbstractContextManager[None]:
        """Of convolutions in float32: rounded to ten bits on a GPU, as the reference computes, but where
        everything is exact.
        """
        if self.device.type == "cpu":
            return nullcontext()
        rounded = self.flow.decoder.estimator.final_proj.weight.dtype is not torch.float32
        context: AbstractContextManager[None] = torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=False, allow_tf32=rounded
        )
        return context

    def open(self, prompt: Prompt, seed: int, plan: HopPlan) -> DecoderStream:
        """A new utterance. The same seed gives the same samples on the same device, whenever codes come."""
        if bool(prompt.codes) != bool(prompt.mel.shape[1]):
            raise InputError(
                "a voice prompt needs both its codes and its mel", param="voice", code="invalid_voice"
            )
        vocoder = VocoderStream(self.vocoder.config, seed, self.device)
        # Once, not for every hop: a copy to a GPU waits for what it is doing.
        prompt = Prompt(prompt.codes, prompt.mel.to(self.device), prompt.embedding.to(self.device))
        return DecoderStream(prompt, seed, plan, vocoder, range(self.flow.config.vocab_size))

    @torch.inference_mode()
    def advance(
        self,
        streams: Sequence[DecoderStream],
        on_step: Callable[[], None] = lambda: None,
        wanted: Callable[[int], bool] = lambda _: True,
    ) -> list[NDArray[np.float32] | OutputError]:
        """Make one hop of every stream, all of which are ready, together.

        Gives the samples (N,) at 22,050 Hz that became final, in the order of `streams`; N is 0 where a hop
        is too short for the vocoder to end on. A stream for which the models give no numbers gets an error
        in their place, and is of no use any more; the others are as they would be without it. Between the
        solver's steps `on_step` is called, which may raise to stop (the streams are then as before), and
        `wanted` asked of every stream by its number: one that nobody waits for any more costs nothing from
        there on, gets no samples, and is as before.
        """
        hops = [stream.hop for stream in streams]
        ready = [hop for hop in hops if hop is not None]
        if len(ready) != len(streams):
            raise ValueError("a stream is not ready for a hop")
        windows = [self._window(stream, hop) for stream, hop in zip(streams, ready, strict=True)]
        pieces = {}
        with self._precision():
            for i, mel in self._mels(windows, on_step, wanted).items():
                stream, hop = streams[i], ready[i]
                seen = self._frames(hop.stop) - self._frames(max(0, hop.stop - stream.plan.context))
                known = torch.cat((stream.mel, mel), dim=1)
                last = stream.made(hop, known[:, known.shape[1] - seen :].clone())
                pieces[i] = MelPiece(stream.vocoder, mel, last)
            waves = advance(
                self.vocoder, list(pieces.values()), waste=self._waste, graphs=self._vocoder_graphs
            )
        finished = {i: _finite(wave.cpu().numpy()) for i, wave in zip(pieces, waves, strict=True)}
        return [finished.get(i, NOTHING) for i in range(len(streams))]

    def decode(
        self, codes: Sequence[int], prompt: Prompt, seed: int, on_step: Callable[[], None] = lambda: None
    ) -> NDArray[np.float32]:
        """A whole utterance at once: speech (N,) at 22,050 Hz, N = 256 times the mel frames of `codes`.

        Raises OutputError where the models give no numbers.
        """
        stream = self.open(prompt, seed, HopPlan.whole())
        stream.push(codes, last=True)
        [wave] = self.advance([stream], on_step)
        if isinstance(wave, OutputError):
            raise wave
        return wave

    def _mels(
        self, windows: Sequence[_Window], on_step: Callable[[], None], wanted: Callable[[int], bool]
    ) -> dict[int, Tensor]:
        """Mel (80, frames) of each window's own codes, by its number, as far as it is wanted at the end.

        Those of similar length are computed together.
        """
        made: dict[int, Tensor] = {}
        for group in groups([window.noise.shape[1] for window in windows], self._waste):
            some = [i for i in group if wanted(i)]
            if not some:
                continue

            def still(place: int, some: Sequence[int] = some) -> bool:
                return wanted(some[place])

            solved = self.flow.solve(
                [windows[i].item for i in some],
                [windows[i].noise for i in some],
                on_step=on_step,
                wanted=still,
            )
            made |= {i: mel[:, windows[i].own] for i, mel in zip(some, solved, strict=True)}
        return {i: made[i] for i in sorted(made) if wanted(i)}

    def _window(self, stream: DecoderStream, hop: Hop) -> _Window:
        plan, prompt = stream.plan, stream.prompt
        kept = plan.prompt_codes(hop, len(prompt.codes))
        prompt_mel = prompt.mel
        if kept < len(prompt.codes):
            frames = round(prompt_mel.shape[1] * kept / len(prompt.codes))
            prompt_mel = prompt_mel[:, prompt_mel.shape[1] - frames :]
            kept = kept if frames else 0
        begin = plan.context_start(hop)
        first, start, stop, seen = (self._frames(n) for n in (begin, hop.start, hop.stop, hop.seen))
        item = FlowItem(
            ids=self._ids(stream.codes[begin : hop.seen]),
            prompt_ids=self._ids(prompt.codes[len(prompt.codes) - kept :]),
            prompt_mel=prompt_mel[0],
            embedding=prompt.embedding[0],
            frames=seen - first,
            made=stream.mel[:, stream.mel.shape[1] - (start - first) :],
        )
        noise = noise_at(self.flow.config, stream.seed, first - len(item.prompt_mel), seen, self.device)
        return _Window(item, noise, slice(start - first, stop - first))

    def _frames(self, codes: int) -> int:
        return self.flow.frames(codes)

    def _ids(self, codes: Sequence[int]) -> Tensor:
        return torch.tensor(list(codes), dtype=torch.int64, device=self.device)


def _finite(wave: NDArray[np.float32]) -> NDArray[np.float32] | OutputError:
    if np.isfinite(wave).all():
        return wave
    return OutputError("the speech decoder gave samples that are not finite")
