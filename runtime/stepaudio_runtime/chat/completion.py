"""vLLM's `/v1/completions` as the gateway uses it: ids in, a stream of ids out."""

import json
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from stepaudio_runtime.errors import StepAudioError


class CompletionBroken(StepAudioError):  # noqa: N818 - says what happened
    """The engine sent an error, or something else than its protocol says, in the middle of an answer."""

    reason = "CompletionBroken"


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to sample. `max_tokens` counts new tokens."""

    max_tokens: int
    temperature: float = 0.7  # the reference's
    top_p: float = 0.9  # the reference's
    seed: int | None = None
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0


def completion_body(
    model: str, prompt: Sequence[int], sampling: Sampling, *, ends: Iterable[int]
) -> dict[str, Any]:
    """Body of a streaming request for one answer that ends with an id of `ends`."""
    body: dict[str, Any] = {
        "model": model,
        "prompt": list(prompt),
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "stop_token_ids": sorted(ends),
        "return_token_ids": True,
        "stream": True,
    }
    if sampling.seed is not None:
        body["seed"] = sampling.seed
    if sampling.frequency_penalty:
        body["frequency_penalty"] = sampling.frequency_penalty
    if sampling.presence_penalty:
        body["presence_penalty"] = sampling.presence_penalty
    return body


@dataclass(frozen=True, slots=True)
class Step:
    """New ids, and why the engine ended if it did (`stop`, `length`, ...)."""

    ids: tuple[int, ...]
    finish_reason: str | None


async def read_steps(lines: AsyncIterator[str]) -> AsyncIterator[Step]:
    """Steps of a server-sent event stream, to its `[DONE]`. Raises CompletionBroken."""
    async for line in lines:
        if not line.startswith("data:"):
            continue
        data = line[5:].strip()
        if data == "[DONE]":
            return
        try:
            event = json.loads(data)
            if event.get("error"):
                raise CompletionBroken(f"the chat engine reports: {event['error'].get('message')}")
            for choice in event.get("choices") or ():
                ids = tuple(int(id_) for id_ in choice.get("token_ids") or ())
                yield Step(ids, choice.get("finish_reason"))
        except (ValueError, TypeError, AttributeError) as fault:
            raise CompletionBroken(f"not an event of the chat engine: {data[:80]!r}") from fault
    raise CompletionBroken("the chat engine's stream ended too early")
