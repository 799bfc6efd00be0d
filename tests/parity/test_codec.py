"""Layouts and prompts equal the reference's: interleaving, `<audio_N>` text, prompts, instruction names."""

import re

import pytest

from stepaudio_runtime.codec.chat_template import Turn, chat_text
from stepaudio_runtime.codec.instructions import instruction_name
from stepaudio_runtime.codec.layout import (
    deinterleave,
    from_ids,
    from_text,
    interleave,
    mel_frames,
    to_ids,
    to_text,
)
from stepaudio_runtime.codec.tts_prompt import (
    HUMMING_PROMPT,
    RAP_PROMPT,
    tts_prompt_ids,
    voice_actor_prompt,
)


@pytest.fixture
def layouts(golden):
    return golden.json("layouts")


@pytest.fixture
def byte_tokenizer(layouts):
    """The tokenizer that the golden prompts were made with: a marker id, then the shifted bytes."""
    described = r"encode\(s\) = \[(\d+)\] \+ \[(\d+) \+ b for b in utf8\(s\)\]"
    match = re.fullmatch(described, layouts["tts_prompt"]["tokenizer"])
    assert match, "the golden prompts were made with a tokenizer this test does not know"
    marker, shift = int(match[1]), int(match[2])
    return lambda text: [marker, *(shift + byte for byte in text.encode())]


def test_nothing_in_the_layouts_goes_uncompared(layouts):
    assert set(layouts) == {
        "instruction_name",
        "tts_prompt",
        "system_prompts_utf8_length",
        "interleave",
        "audio_text_to_ids",
        "chat_template",
        "mel_len",
    }


def test_interleaving(layouts):
    assert layouts["interleave"]
    for case in layouts["interleave"]:
        codes = interleave(case["linguistic"], case["semantic"])
        assert to_ids(codes) == case["ids"]
        assert to_text(codes) == case["text"]
        linguistic, semantic = deinterleave(codes)
        assert linguistic == case["linguistic"][: len(linguistic)]
        assert semantic == case["semantic"][: len(semantic)]


def test_text_back_to_ids(layouts):
    case = layouts["audio_text_to_ids"]
    assert to_ids(from_text(case["text"])) == case["ids"]
    assert to_text(from_ids(case["ids"])) == case["text"]


def test_tts_prompts(layouts, byte_tokenizer):
    assert layouts["tts_prompt"]["cases"]
    for case in layouts["tts_prompt"]["cases"]:
        ids = tts_prompt_ids(
            case["text"],
            voice_text=case["prompt_text"],
            voice_codes=from_ids(case["prompt_code"]),
            speaker=case["speaker"],
            encode=byte_tokenizer,
        )
        assert ids == case["ids"], case["text"]


def test_system_prompts_have_the_length_of_the_reference(layouts):
    lengths = layouts["system_prompts_utf8_length"]
    assert lengths == {
        "sys_prompt_for_rap": len(RAP_PROMPT.encode()),
        "sys_prompt_for_vocal": len(HUMMING_PROMPT.encode()),
        "sys_prompt_wo_spk": len(voice_actor_prompt("").encode()),
        "sys_prompt_with_spk": len(voice_actor_prompt("{}").encode()),
    }


def test_instruction_names(layouts):
    assert layouts["instruction_name"]
    for case in layouts["instruction_name"]:
        assert instruction_name(case["text"]) == case["name"], case["text"]


def test_chat_template(layouts):
    audio = tuple(from_text(layouts["chat_template"]["audio_text"]))

    def parts(content):
        match content:
            case None:
                return None
            case str():
                return (content,)
            case {"type": "text", "text": text}:
                return (text,)
            case {"type": "audio"}:
                return (audio,)
            case _:
                pytest.fail(f"the golden chat has a content this test does not know: {content!r}")

    assert layouts["chat_template"]["cases"]
    for case in layouts["chat_template"]["cases"]:
        turns = [Turn(message["role"], parts(message.get("content"))) for message in case["messages"]]
        assert chat_text(turns) == case["text"]


def test_mel_frames(layouts):
    assert layouts["mel_len"]
    for case in layouts["mel_len"]:
        assert mel_frames(case["tokens"], case["rate"]) == case["frames"], case
