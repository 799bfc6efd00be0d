"""The tags that the TTS model was trained to obey, in their groups (the reference's list)."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class Group(StrEnum):
    """What a tag is about."""

    STYLE = "style"
    LANGUAGE = "language"
    EMOTION = "emotion"
    RATE = "rate"


TAGS: Mapping[Group, tuple[str, ...]] = {
    Group.STYLE: ("RAP", "哼唱"),
    Group.LANGUAGE: ("中文", "英文", "韩语", "日语", "四川话", "粤语", "广东话"),
    Group.EMOTION: ("高兴1", "高兴2", "生气1", "生气2", "悲伤1", "撒娇1"),
    Group.RATE: ("慢速1", "慢速2", "快速1", "快速2"),
}
