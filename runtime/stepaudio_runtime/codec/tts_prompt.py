"""The prompt of the TTS model: system prompt, the voice's transcript and codes, then the text to speak."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from stepaudio_runtime.codec.instructions import Instruction, instruction_name
from stepaudio_runtime.codec.layout import checked_codes, to_ids
from stepaudio_runtime.contract import AUDIO_OFFSET, BOS_ID, BOT_ID, EOT_ID

Encode = Callable[[str], list[int]]
"""Text to ids, as the model's own tokenizer does with its defaults."""

_LISTS = (
    ("情感标签涵盖了多种情绪状态", ("高兴1", "高兴2", "生气1", "生气2", "悲伤1", "撒娇1")),
    ("语种或方言标签包含多种语言或方言", ("中文", "英文", "韩语", "日语", "四川话", "粤语", "广东话")),
    ("音乐哼唱标签包含多种类型歌曲哼唱", ("RAP", "哼唱")),
    ("语音调整标签", ("慢速1", "慢速2", "快速1", "快速2")),
)

RAP_PROMPT = "请参考对话历史里的音色，用RAP方式将文本内容大声说唱出来。"
HUMMING_PROMPT = "请参考对话历史里的音色，用哼唱的方式将文本内容大声唱出来。"


def voice_actor_prompt(speaker: str) -> str:
    """System prompt of plain speech: be a voice actor, obey the tags; with the speaker's name if given."""
    tags = "".join(
        f"# {title}，包括但不限于：\n" + "".join(f'- "{tag}"\n' for tag in listed) + "\n"
        for title, listed in _LISTS
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

    A text with the instruction RAP that contains 哼唱 anywhere is hummed, as the reference does it.
    `strict` reads the instruction strictly (`instruction_name`).
    """
    if instruction_name(text, strict=strict) in list(Instruction):
        return HUMMING_PROMPT if Instruction.HUMMING in text else RAP_PROMPT
    return voice_actor_prompt(speaker)


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
    line_break = len(encode("\n"))

    def after_break(part: str) -> list[int]:
        return encode("\n" + part)[line_break:]

    human, assistant = encode("human\n"), encode("assistant\n")
    turns = (
        encode("system\n" + system_prompt(text, speaker, strict=strict)),
        human + after_break(voice_text),
        assistant + to_ids(checked_codes(voice_codes), audio_offset),
        human + after_break(text),
    )
    ids = [BOS_ID]
    for turn in turns:
        ids += [BOT_ID, *turn, EOT_ID]
    return [*ids, BOT_ID, *assistant]
