"""How the Chinese domain's characters sound: pinyin without tones, and the phones of a syllable.

A character of the domain has one reading in it, so a table does. Phones are the names that CMU's Mandarin
models have for an initial and a final.
"""

from __future__ import annotations

_SPELT = """
ba 八  bang 帮  bu 不  chu 厨  da 打  de 的  deng 灯等  dian 电点  duo 多  er 二  fang 房
fen 分  feng 风  fu 负  gen 跟  guan 关  hao 好  ji 几  jia 加  jian 减见  jing 经  jiu 九
kai 开  ke 客可  kong 空  le 了  liang 两  ling 零  liu 六  me 么  ni 你  nin 您  qi 七气
qing 请  san 三  shan 扇  shang 上  shao 少  shen 什  shi 室视十  shu 书  shuo 说  si 四
tiao 调  ting 厅  wo 卧我  wu 五  xian 现  xie 谢  yi 一已以  you 有  yu 于  zai 在再
""".split()  # noqa: SIM905 - a table reads better than a list of strings
READINGS = {
    character: syllable
    for syllable, characters in zip(_SPELT[::2], _SPELT[1::2], strict=True)
    for character in characters
}
"""Character -> its syllable."""

_INITIALS = ("zh", "ch", "sh", *"bpmfdtnlgkhjqxrzcs")
_BUZZED = {"zh": "ib", "ch": "ib", "sh": "ib", "r": "ib", "z": "if", "c": "if", "s": "if"}
"""What is written as i after these is no i."""
_ALSO: dict[str, list[tuple[str, ...]]] = {"yi": [("i",)], "wu": [("u",)], "er": [("e", "er"), ("a", "er")]}


def syllables(text: str) -> list[str]:
    """The syllables of `text`; what is no character of the domain (a space, a mark, a letter) has none."""
    return [READINGS[character] for character in text if character in READINGS]


def pronunciations(syllable: str) -> list[tuple[str, ...]]:
    """The phones of `syllable`, the usual ones first: "zhang" -> [("zh", "ang")].

    An i, u or er that begins a syllable is said with a glide or a short vowel before it or without.
    """
    return [_phones(syllable), *_ALSO.get(syllable, [])]


def _phones(syllable: str) -> tuple[str, ...]:
    if syllable == "er":
        return ("er",)
    if syllable.startswith("yu"):
        return ("y", "ux" + syllable[2:])
    if syllable.startswith("yi"):
        return ("y", syllable[1:])
    if syllable[0] in "yw":
        return (syllable[0], syllable[1:])
    initial = next(initial for initial in _INITIALS if syllable.startswith(initial))
    final = syllable.removeprefix(initial)
    return (initial, _BUZZED.get(initial, final) if final == "i" else final)
