"""`pipecat_client.py URL WAVE MODEL`: Pipecat's OpenAI services against a gateway, its speech by that model;
prints what came back.
"""

import asyncio
import json
import sys
from pathlib import Path

from pipecat.frames.frames import (
    EndFrame,
    ErrorFrame,
    Frame,
    LLMContextFrame,
    LLMTextFrame,
    TranscriptionFrame,
    TTSAudioRawFrame,
    TTSSpeakFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.runner import PipelineRunner
from pipecat.pipeline.task import PipelineTask
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.services.openai.llm import OpenAILLMService
from pipecat.services.openai.stt import OpenAISTTService
from pipecat.services.openai.tts import OpenAITTSService


class Ear(FrameProcessor):
    """Keeps every frame that reaches it."""

    def __init__(self) -> None:
        super().__init__()
        self.frames: list[Frame] = []

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        self.frames.append(frame)
        await self.push_frame(frame, direction)


async def through(service: FrameProcessor, *frames: Frame) -> list[Frame]:
    """What comes out of `service` for `frames`. Raises RuntimeError for an error frame."""
    ear = Ear()
    errors: list[str] = []
    task = PipelineTask(Pipeline([service, ear]))

    @task.event_handler("on_pipeline_error")
    async def failed(_task: PipelineTask, frame: ErrorFrame) -> None:
        errors.append(frame.error)

    await task.queue_frames([*frames, EndFrame()])
    await PipelineRunner(handle_sigint=False).run(task)
    if errors:
        raise RuntimeError(errors[0])
    return ear.frames


async def main(url: str, recording: bytes, speech: str) -> None:
    """Everything once."""
    keys = {"base_url": url, "api_key": "none"}
    model = OpenAILLMService(settings=OpenAILLMService.Settings(model="step-audio-chat"), **keys)
    context = LLMContext([{"role": "user", "content": "say hello to the world"}])
    texts = [f.text for f in await through(model, LLMContextFrame(context)) if isinstance(f, LLMTextFrame)]

    voice = OpenAITTSService(
        settings=OpenAITTSService.Settings(model=speech, voice="alloy"), sample_rate=24000, **keys
    )
    spoken = [
        frame
        for frame in await through(voice, TTSSpeakFrame("hello to the world"))
        if isinstance(frame, TTSAudioRawFrame)
    ]
    seconds = sum(len(frame.audio) / 2 / frame.sample_rate for frame in spoken)

    ears = OpenAISTTService(settings=OpenAISTTService.Settings(model="step-audio-chat"), **keys)
    heard = [frame async for frame in ears.run_stt(recording)]
    transcripts = [
        frame.text if isinstance(frame, TranscriptionFrame) else getattr(frame, "error", repr(frame))
        for frame in heard
        if frame is not None
    ]
    print(
        json.dumps(
            {
                "chat": "".join(texts),
                "speech": {
                    speech: {"seconds": round(seconds, 2), "rate": spoken[0].sample_rate if spoken else 0}
                },
                "transcript": " ".join(transcripts),
            }
        )
    )


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]).read_bytes(), sys.argv[3]))
