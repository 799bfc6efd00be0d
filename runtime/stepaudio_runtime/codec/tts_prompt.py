"""The prompt of the TTS model: system prompt, the voice's transcript and codes, then the text to speak."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from stepaudio_runtime.codec.controls import music
from stepaudio_runtime.codec.instructions import Instruction, instruction_name
from stepaudio_runtime.codec.layout import checked_codes, to_ids
from stepaudio_runtime.codec.tags import TAGS, Group
from stepaudio_runtime.contract import AUDIO_OFFSET, BOS_ID, BOT_ID, EOT_ID

Encode = Callable[[str], list[int]]
"""Text to ids, as the model's own tokenizer does with its defaults."""

_TITLES = {
    Group.EMOTION: "情感标签涵盖了多种情绪状态",
    Group.LANGUAGE: "语种或方言标签包含多种语言或方言",
    Group.STYLE: "音乐哼唱标签包含多种类型歌曲哼唱",
    Group.RATE: "语音调整标签",
}

RAP_PROMPT = "请参考对话历史里的音色，用RAP方式将文本内容大声说唱出来。"
HUMMING_PROMPT = "请参考对话历史里的音色，用哼唱的方式将文本内容大声唱出来。"


def voice_actor_prompt(speaker: str) -> str:
    """System prompt of plain speech: be a voice actor, obey the tags; with the speaker's name if given."""
    tags = "".join(
        f"# {title}，包括但不限于：\n" + "".join(f'- "{tag}"\n' for tag in TAGS[group]) + "\n"
        for group, title in _TITLES.items()
    )
    voice = f"使用[{speaker}]的声音，" if speaker else ""
    return (
        "作为一名卓越的声优演员，你的任务是根据文本中（）或()括号内标注的情感、语种或方言、音乐哼唱、语音调整等标签，"
        f"以丰富细腻的情感和自然顺畅的语调来朗读文本。\n{tags}"
        f"请在朗读时，{voice}根据这些情感标签的指示，调整你的情感、语气、语调和哼唱节奏，"
        "以确保文本的情感和意义得到准确而生动的传达，如果没有()或（）括号，则根据文本语义内容自由演绎。"
    )


def system_prompt(text: str, speaker: str, *, strict: bool = False) -> str:
    """System prompt for `text`: rap or humming by its instruction, else the voice actor's.

    The reference reads one instruction by `instruction_name`, and hums a text with the instruction RAP that
    has 哼唱 anywhere in it. With `strict`, the tags in front of the text decide and its words do not.
    """
    if strict:
        found = music(text)
    elif instruction_name(text) in list(Instruction):
        found = Instruction.HUMMING if Instruction.HUMMING in text else Instruction.RAP
    else:
        found = None
    if found is not None:
        return HUMMING_PROMPT if found is Instruction.HUMMING else RAP_PROMPT
    return voice_actor_prompt(speaker)


def after_break(text: str, encode: Encode) -> list[int]:
    """Ids of `text` as it is split behind a line break; alone, many tokenizers put a space before it."""
    return encode("\n" + text)[len(encode("\n")) :]


def tts_prompt_ids(
    text: str,
    *,
    voice_text: str,
    voice_codes: Sequence[int],
    speaker: str,
    encode: Encode,
    audio_offset: int = AUDIO_OFFSET,
    strict: bool = False,
) -> list[int]:
    """Ids of the prompt to speak `text` in the voice of `voice_codes`, whose transcript is `voice_text`.

    `[1] 4 system\\n… 3 | 4 human\\n{voice_text} 3 | 4 assistant\\n{voice_codes} 3 | 4 human\\n{text} 3 |
    4 assistant\\n`, every part encoded alone; the two texts behind a line break that is cut off again, so
    that they are split as after one. The model answers with audio ids and 3. Raises InputError for a bad
    code.
    """
    human, assistant = encode("human\n"), encode("assistant\n")
    turns = (
        encode("system\n" + system_prompt(text, speaker, strict=strict)),
        human + after_break(voice_text, encode),
        assistant + to_ids(checked_codes(voice_codes), audio_offset),
        human + after_break(text, encode),
    )
    ids = [BOS_ID]
    for turn in turns:
        ids += [BOT_ID, *turn, EOT_ID]
    return [*ids, BOT_ID, *assistant]
