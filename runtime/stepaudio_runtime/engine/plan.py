"""From a recipe to numbered samples: which text, voice and style each one is. Pure but for reading texts.

A sample's number decides its shard; nothing about a sample depends on another one or on when it is made.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice, product
from pathlib import Path

from stepaudio_runtime.engine.domain.texts import sentences
from stepaudio_runtime.engine.duplicates import NearTexts
from stepaudio_runtime.engine.recipe import MAX_TEXTS, Recipe, Texts
from stepaudio_runtime.errors import ConfigError

MAX_TEXT = 2_000
"""Characters of one text; longer lines are an error, not speech."""


@dataclass(frozen=True)
class Text:
    """Something to say. `split` is empty for texts of a file."""

    text: str
    language: str
    split: str


@dataclass(frozen=True)
class Sample:
    """One utterance to make. `seed` is its own, so that repeats of a text in a voice need not be equal."""

    number: int
    text: str
    language: str
    split: str
    voice: str
    style: str
    seed: int

    @property
    def key(self) -> str:
        """Its name in the shards."""
        return f"{self.number:08d}"


class Plan:
    """The samples of a recipe, 0..len-1, made when asked for: a million of them take no memory."""

    def __init__(self, recipe: Recipe, texts: Sequence[Text]) -> None:
        self.recipe = recipe
        self.texts = texts
        self._takes = list(product(recipe.voices, recipe.styles))
        self._per_text = len(self._takes) if recipe.combinations == "all" else recipe.combinations

    def __len__(self) -> int:
        return len(self.texts) * self._per_text

    def __getitem__(self, number: int) -> Sample:
        place, take = divmod(number, self._per_text)
        text = self.texts[place]
        voice, style = self._takes_of(place)[take]
        seed = 1 + _hash(self.recipe.seed, "sample", number) % (2**31 - 1)
        return Sample(number, text.text, text.language, text.split, voice, style, seed)

    @property
    def shards(self) -> int:
        """How many shards the samples fill."""
        return -(-len(self) // self.recipe.output.samples_per_shard)

    def numbers(self, shard: int) -> range:
        """The samples of a shard."""
        size = self.recipe.output.samples_per_shard
        return range(shard * size, min((shard + 1) * size, len(self)))

    def _takes_of(self, place: int) -> list[tuple[str, str]]:
        if self._per_text == len(self._takes):
            return self._takes
        order = sorted(self._takes, key=lambda take: _hash(self.recipe.seed, "take", place, *take))
        return order[: self._per_text]


def plan(recipe: Recipe) -> Plan:
    """The plan of `recipe`: reads its texts, drops empty and repeated ones. Raises ConfigError."""
    near = NearTexts(recipe.filters.text_similarity)
    texts = [
        text
        for number, source in enumerate(recipe.texts)
        for text in _texts(source, number, recipe.seed)
        if near.add(f"{text.language}: {text.text}")
    ]
    if not texts:
        raise ConfigError(what="texts: there is not one text", cure="give a file with a text a line")
    if len(texts) > MAX_TEXTS:
        raise ConfigError(what=f"texts: more than {MAX_TEXTS:,} of them", cure="make several recipes")
    return Plan(recipe, texts)


def _texts(source: Texts, number: int, seed: int) -> Iterable[Text]:
    if source.domain is not None:
        drawn = sentences(source.domain, source.split, source.count or 1, seed)
        return [Text(sentence.text, source.domain.value, source.split.value) for sentence in drawn]
    if source.file is None:
        raise AssertionError("the recipe holds one of the two")
    return _lines(source.file, source.language or "", source.count, f"texts.{number}.file")


def _lines(file: Path, language: str, count: int | None, field: str) -> Iterable[Text]:
    try:
        with file.open(encoding="utf-8") as lines:
            for number, line in enumerate(islice(lines, count), start=1):
                text = unicodedata.normalize("NFC", " ".join(line.split()))
                if len(text) > MAX_TEXT or "\0" in text:
                    what = f"{field}: line {number} has more than {MAX_TEXT} characters, or a zero"
                    raise ConfigError(what=what, cure="split it")
                if text:
                    yield Text(text, language, "")
    except UnicodeDecodeError as error:
        raise ConfigError(what=f"{field}: {file} is not UTF-8: {error}", cure="convert it") from None


def _hash(*key: object) -> int:
    return int.from_bytes(blake2b(json.dumps(key).encode(), digest_size=8).digest(), "big")
