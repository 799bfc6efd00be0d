"""`livekit_client.py URL WAVE MODEL...`: LiveKit's OpenAI plugin against a gateway, speech by each model;
prints what came back.
"""

import asyncio
import json
import sys
import wave
from pathlib import Path

from livekit import rtc
from livekit.agents import APIConnectOptions
from livekit.agents.llm import ChatContext
from livekit.plugins import openai

ONCE = APIConnectOptions(max_retry=0, timeout=30)


async def chat(url: str, text: str) -> str:
    """The streamed answer of the language model."""
    model = openai.LLM(model="step-audio-chat", base_url=url, api_key="none")
    context = ChatContext.empty()
    context.add_message(role="system", content="Be short.")
    context.add_message(role="user", content=text)
    parts = []
    async with model.chat(chat_ctx=context, conn_options=ONCE) as stream:
        async for chunk in stream:
            if chunk.delta and chunk.delta.content:
                parts.append(chunk.delta.content)
    await model.aclose()
    return "".join(parts)


async def speak(url: str, text: str, model: str) -> dict[str, float]:
    """Rate in Hz and seconds of the speech; a model of OpenAI's newer kind is asked for events."""
    voice = openai.TTS(model=model, voice="alloy", base_url=url, api_key="none")
    seconds, rate = 0.0, 0
    async with voice.synthesize(text, conn_options=ONCE) as stream:
        async for audio in stream:
            seconds += audio.frame.duration
            rate = audio.frame.sample_rate
    await voice.aclose()
    return {"seconds": round(seconds, 2), "rate": rate}


async def transcribe(url: str, recording: Path) -> str:
    """The text of a recording."""
    ears = openai.STT(model="step-audio-chat", base_url=url, api_key="none", language="en")
    with wave.open(str(recording)) as file:
        data = file.readframes(file.getnframes())
        frame = rtc.AudioFrame(data, file.getframerate(), file.getnchannels(), file.getnframes())
    event = await ears.recognize(frame, conn_options=ONCE)
    await ears.aclose()
    return event.alternatives[0].text


async def main(url: str, recording: Path, models: list[str]) -> None:
    """Everything once."""
    print(
        json.dumps(
            {
                "chat": await chat(url, "say hello to the world"),
                "speech": {model: await speak(url, "hello to the world", model) for model in models},
                "transcript": await transcribe(url, recording),
            }
        )
    )


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:]))
