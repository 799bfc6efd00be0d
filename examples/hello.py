"""Say a sentence to Step-Audio and hear its answer: an ordinary OpenAI client, nothing else.

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


def main() -> int:
    """Sends a wave as a chat message, saves the spoken reply, prints what came back and how fast."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url", help="base URL of the API, ending in /v1")
    parser.add_argument("question", type=Path, help="wave file to send")
    parser.add_argument("reply", type=Path, help="wave file to write")
    parser.add_argument("--api-key", default="none", help="key of the gateway, where it asks for one")
    parser.add_argument("--voice", default="alloy")
    parser.add_argument("--max-tokens", type=int, default=48)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()

    client = OpenAI(base_url=options.url, api_key=options.api_key, timeout=300, max_retries=2)
    audio = {"data": base64.b64encode(options.question.read_bytes()).decode(), "format": "wav"}
    try:
        begun = time.monotonic()
        model = next(m.id for m in client.models.list() if "chat" in m.id.lower())
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
    except APIError as error:
        print(f"the API answered: {error}", file=sys.stderr)
        return 1
    if message.audio is None:
        print("the API answered without audio", file=sys.stderr)
        return 1
    options.reply.write_bytes(base64.b64decode(message.audio.data))
    with wave.open(io.BytesIO(options.reply.read_bytes())) as spoken:
        seconds = spoken.getnframes() / spoken.getframerate()
    print(f"text:               {message.audio.transcript!r}")
    print(f"audio:              {seconds:.2f} s in {options.reply}")
    print(f"time to first byte: {first_byte:.2f} s")
    print(f"whole answer:       {time.monotonic() - begun:.2f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
