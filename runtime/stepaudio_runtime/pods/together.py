"""A TTS pod that holds the tokenizer too: both in one process and on one GPU, behind one port.

Each keeps its own state, so that a pod whose speech hangs is not taken for one that lives because it hears.
"""

import asyncio

from starlette.types import ASGIApp, Receive, Scope, Send

from stepaudio_runtime.errors import StepAudioError
from stepaudio_runtime.tokenizer.service import WORK, TokenizerService
from stepaudio_runtime.tts.service import TtsService


class Together:
    """The two services as one; `tokenizer` is the guest of the other's state."""

    def __init__(self, tts: TtsService, tokenizer: TokenizerService) -> None:
        self.failed: asyncio.Future[StepAudioError] = asyncio.get_running_loop().create_future()
        self._tts = tts
        self._tokenizer = tokenizer
        tts.state.guest = tokenizer.state
        for part in (tts.failed, tokenizer.failed):
            part.add_done_callback(self._fail)

    async def start(self) -> None:
        """One after the other: the tokenizers come into what the engine leaves of the GPU."""
        await self._tts.start()
        self._tts.state.load("loading the tokenizers")
        await self._tokenizer.start()
        self._tokenizer.state.become_ready()

    async def stop(self) -> None:
        """End both."""
        await asyncio.gather(self._tokenizer.stop(), self._tts.stop())

    def _fail(self, part: "asyncio.Future[StepAudioError]") -> None:
        if not part.cancelled() and not self.failed.done():
            self.failed.set_result(part.result())


def one_app(tts: ASGIApp, tokenizer: ASGIApp) -> ASGIApp:
    """The tokenizer's routes to it, all others (health too) to TTS."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await (tokenizer if scope.get("path") in WORK else tts)(scope, receive, send)

    return app
