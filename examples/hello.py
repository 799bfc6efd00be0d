"""Talk with Step-Audio: it says a sentence, hears one, answers it. An ordinary OpenAI client, nothing else.

python examples/hello.py http://ADDRESS/v1 examples/hello.wav reply.wav
"""

import argparse
import base64
import io
import sys
import time
import wave
from pathlib import Path

from openai import APIError, OpenAI

SENTENCE = "The timer is set for seven minutes."


def main() -> int:
    """Says a sentence, sends a wave as a chat message, saves the spoken reply; prints what came."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url", help="base URL of the API, ending in /v1")
    parser.add_argument("question", type=Path, help="wave file to send")
    parser.add_argument("reply", type=Path, help="wave file to write the answer to")
    parser.add_argument("--said", type=Path, default=Path("said.wav"), help="wave file of the sentence")
    parser.add_argument("--say", default=SENTENCE, help="the sentence")
    parser.add_argument("--api-key", default="none", help="key of the gateway, where it asks for one")
    parser.add_argument("--voice", default="alloy")
    parser.add_argument("--max-tokens", type=int, default=48)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()

    client = OpenAI(base_url=options.url, api_key=options.api_key, timeout=300, max_retries=2)
    try:
        models = [model.id for model in client.models.list()]
        chat = next(name for name in models if "chat" in name.lower())
        speech = next(name for name in models if "tts" in name.lower())
        says(client, speech, options)
        question = options.question.read_bytes()
        heard = client.audio.transcriptions.create(model=chat, file=(options.question.name, question))
        print(f"hears:   {heard.text!r} in {options.question}")
        return answers(client, chat, question, options)
    except APIError as error:
        print(f"the API answered: {error}", file=sys.stderr)
        return 1


def says(client: OpenAI, model: str, options: argparse.Namespace) -> None:
    """Text to speech, with the time until the first sound is there."""
    begun, first, data = time.monotonic(), None, b""
    with client.audio.speech.with_streaming_response.create(
        model=model, voice=options.voice, input=options.say, response_format="pcm"
    ) as response:
        for part in response.iter_bytes(4096):
            first = first or time.monotonic() - begun
            data += part
    with wave.open(str(options.said), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(24_000)
        file.writeframes(data)
    seconds = len(data) / 2 / 24_000
    print(
        f"says:    {options.say!r}: {seconds:.2f} s in {options.said}, first sound after {first or 0:.2f} s"
    )


def answers(client: OpenAI, model: str, question: bytes, options: argparse.Namespace) -> int:
    """Speech in, text and speech out."""
    begun = time.monotonic()
    audio = {"data": base64.b64encode(question).decode(), "format": "wav"}
    with client.chat.completions.with_streaming_response.create(
        model=model,
        modalities=["text", "audio"],
        audio={"voice": options.voice, "format": "wav"},
        max_completion_tokens=options.max_tokens,
        seed=options.seed,
        messages=[{"role": "user", "content": [{"type": "input_audio", "input_audio": audio}]}],
    ) as response:
        first_byte = time.monotonic() - begun
        message = response.parse().choices[0].message
    if message.audio is None:
        print("the API answered without audio", file=sys.stderr)
        return 1
    options.reply.write_bytes(base64.b64decode(message.audio.data))
    with wave.open(io.BytesIO(options.reply.read_bytes())) as spoken:
        seconds = spoken.getnframes() / spoken.getframerate()
    print(f"answers: {message.audio.transcript!r}: {seconds:.2f} s in {options.reply}, ", end="")
    print(f"first byte after {first_byte:.2f} s, all after {time.monotonic() - begun:.2f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
