"""Instructions in plain words, English or Chinese, as the model's tags: a small grammar, stated here.

    instructions = clause { ("," | "." | ";" | "but" | "，" | "。" | ...) clause }
    clause       = { filler | [degree] word }

A *word* is one of WORDS; with a strong degree ("very happy", "非常高兴") it means the second, stronger tag
where there is one. *Fillers* say nothing ("speak in a ... voice", "请用…的语气说"). Everything else is not
understood and handed back, and so is a whole clause with a negation in it ("don't sound sad"): the model has
no tag for not being something.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from stepaudio_runtime.codec.tags import TAGS, Group


@dataclass(frozen=True)
class Wish:
    """One tag that was asked for."""

    group: Group
    tag: str


_TAGS_OF = {
    ("高兴1", "高兴2"): "happy happily cheerful cheerfully joyful joyfully glad upbeat positive smiling "
    "高兴 开心 快乐 愉快 欢快 喜悦",
    ("高兴2", "高兴2"): "excited excitedly overjoyed thrilled ecstatic 兴奋 激动 狂喜",
    ("生气1", "生气2"): "angry angrily annoyed irritated 生气 恼火",
    ("生气2", "生气2"): "furious furiously enraged 愤怒 暴怒",
    ("悲伤1", "悲伤1"): "sad sadly unhappy sorrowful mournful melancholy 悲伤 伤心 难过 忧伤",
    ("撒娇1", "撒娇1"): "coquettish coquettishly coy 撒娇",
    ("中文", "中文"): "chinese mandarin 中文 普通话 汉语 国语",
    ("英文", "英文"): "english 英文 英语",
    ("韩语", "韩语"): "korean 韩语 韩文",
    ("日语", "日语"): "japanese 日语 日文",
    ("四川话", "四川话"): "sichuanese sichuan 四川话 四川",
    ("粤语", "粤语"): "cantonese 粤语",
    ("广东话", "广东话"): "广东话",
    ("慢速1", "慢速2"): "slow slowly slower unhurried 慢速 缓慢 慢慢 慢",
    ("快速1", "快速2"): "fast faster quick quickly rapid rapidly 快速 迅速 快",
    ("RAP", "RAP"): "rap rapping 说唱",
    ("哼唱", "哼唱"): "hum humming 哼唱 哼",
}
WORDS = {word: tags for tags, words in _TAGS_OF.items() for word in words.split()} | {
    tag.casefold(): (tag, tag) for tags in TAGS.values() for tag in tags
}
"""The tag of a word, plainly and with a strong degree."""


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


STRONG = _set("very really extremely super much 非常 十分 特别 极其 很 更")
WEAK = _set("slightly somewhat bit little rather quite 有点 有些 稍微 稍 略 比较")
NEGATIONS = _set("not no never without don't dont isn't avoid nor 不要 不能 不 别 没有 没 勿 无")
FILLERS = _set(
    "a an the in with and of at to be as is it this that your you please speak speaking say saying read "
    "reading talk talking sound sounding use using tone tones voice style manner way mood emotion pace "
    "speed rate tempo language dialect accent text sentence aloud out loud feeling "
    "请 用 以 的 地 得 着 了 你 它 把 来 说 讲 读 念 唱 说出 朗读 话 语气 声音 口吻 口气 嗓音 语调 语速 速度 "
    "方式 风格 情绪 心情 情感 感觉 语言 方言 口音 一点 一些 点 些 和 与 且 并 并且 而 又 这 这句 这段 "
    "文本 文字"
)
_LONGEST = max(map(len, [*WORDS, *STRONG, *WEAK, *NEGATIONS, *FILLERS]))
_CLAUSE = re.compile(r"[,.;:!?、，。；：！？\n…]+|\bbut\b|但是|但")
_TOKEN = re.compile(r"[a-z]+(?:['’][a-z]+)?|[^\sa-z]+")
_GROUP = {tag: group for group, tags in TAGS.items() for tag in tags}


def understand(instructions: str) -> tuple[tuple[Wish, ...], tuple[str, ...]]:
    """The wishes in the order of their words, and what was not understood."""
    wishes: list[Wish] = []
    unknown: list[str] = []
    for clause in _CLAUSE.split(unicodedata.normalize("NFKC", instructions).casefold().replace("’", "'")):
        words = [word for token in _TOKEN.findall(clause) for word in _words(token)]
        if any(word in NEGATIONS for word in words):
            unknown.append(clause.strip())
            continue
        strong = False
        for word in words:
            if word in WORDS:
                tag = WORDS[word][1 if strong else 0]
                wishes.append(Wish(_GROUP[tag], tag))
                strong = False
            elif word in STRONG:
                strong = True
            elif word not in FILLERS and word not in WEAK:
                unknown.append(word)
    return tuple(wishes), tuple(unknown)


def _words(token: str) -> list[str]:
    """A run of letters as it is; any other run cut into the longest known words and what is between."""
    if token[0].isascii() and token[0].isalpha():
        return [token]
    words: list[str] = []
    rest = ""
    position = 0
    while position < len(token):
        length = next(
            (
                n
                for n in range(min(_LONGEST, len(token) - position), 0, -1)
                if _is_known(token[position:][:n])
            ),
            0,
        )
        if length == 0:
            rest += token[position]
            position += 1
            continue
        words += [rest] if rest else []
        words.append(token[position : position + length])
        rest = ""
        position += length
    return [*words, rest] if rest else words


def _is_known(word: str) -> bool:
    return word in WORDS or word in FILLERS or word in STRONG or word in WEAK or word in NEGATIONS
