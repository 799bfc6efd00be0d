"""Speech to text, by the chat model under a system prompt that asks for nothing but the words."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from stepaudio_runtime.audio.files import Wave
from stepaudio_runtime.chat.completion import Sampling
from stepaudio_runtime.codec.chat_template import Turn
from stepaudio_runtime.gateway.engine import Answer, Engine, Usage


class Transcriber:
    """`prompt` is the system prompt; `max_new_tokens` bounds the words."""

    def __init__(self, engine: Engine, *, prompt: str, max_new_tokens: int) -> None:
        self._engine = engine
        self._prompt = prompt
        self._max_new_tokens = max_new_tokens

    @asynccontextmanager
    async def listen(
        self,
        wave: Wave,
        param: str,
        *,
        language: str | None = None,
        hint: str | None = None,
        temperature: float = 0.0,  # greedy unless asked otherwise: the words are to be heard, not invented
    ) -> AsyncIterator[Answer]:
        """Begin to write down what is said in `wave`. Raises AudioError naming `param`."""
        codes = (await self._engine.tokens(wave, param))["codes"]
        system = self._prompt
        if language:
            system += f"\nlanguage: {language}"
        if hint:
            system += f"\n{hint}"
        turns = [Turn("system", (system,)), Turn("user", (tuple(codes),))]
        sampling = Sampling(self._max_new_tokens, temperature=temperature)
        async with self._engine.answer(turns, sampling) as answer:
            yield answer

    async def words(self, wave: Wave, param: str) -> tuple[str, Usage]:
        """What is said in `wave`, and the tokens that it took. Raises AudioError naming `param`."""
        async with self.listen(wave, param) as answer:
            text = "".join([delta.text async for delta in answer.deltas()])
        return text.strip(), answer.usage
