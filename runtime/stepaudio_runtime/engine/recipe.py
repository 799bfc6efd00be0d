"""The recipe: what to say, in which voices and styles, by which teacher, what to refuse, what to write.

    name: nano-english
    seed: 1
    licence: Apache-2.0
    texts:
      - {domain: en, split: train, count: 1000}
      - {file: stories.txt, language: en}        # one text a line, beside the recipe
    voices: [en-us+f2, en-us+f5]
    styles: ["", 慢速1, 快速1]
    combinations: 2                              # voices and styles of each text; default: all of them
    teacher: {kind: espeak}                      # or {kind: speech, url: ..., model: ...}
    filters: {duration_s: [0.3, 20], max_word_errors: 0.5}
    tokenizer: {models: /models}                 # or {url: http://prod-tokenizer:8000}
    output: {samples_per_shard: 500}

It is data: no tag of YAML makes an object, no alias is followed, and what is not named here is refused. An
error names the field. How many processes run is not part of it, because it must not change the result.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    HttpUrl,
    StringConstraints,
    ValidationError,
    model_validator,
)

from stepaudio_runtime.engine.domain.texts import Language, Split
from stepaudio_runtime.engine.speech import STYLES
from stepaudio_runtime.errors import ConfigError

MAX_BYTES = 1 << 20
MAX_TEXTS = 5_000_000
_Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
_Word = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Texts(_Part):
    """Where texts come from: a domain of this package, or the lines of a file beside the recipe."""

    domain: Language | None = None
    split: Split = Split.TRAIN
    count: Annotated[int, Field(ge=1, le=MAX_TEXTS)] | None = None  # of a file: at most so many lines
    file: Path | None = None
    language: _Word | None = None  # of a file

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.domain is None) == (self.file is None):
            raise ValueError("give either domain or file")
        if self.domain is not None and (self.count is None or self.language is not None):
            raise ValueError("a domain takes a count, and no language")
        if self.file is not None and self.language is None:
            raise ValueError("a file needs its language, for example en")
        return self


class EspeakTeacher(_Part):
    """espeak-ng, in this process: deterministic. Voices are espeak-ng's names, styles those of `STYLES`."""

    kind: Literal["espeak"]


class SpeechTeacher(_Part):
    """An OpenAI-compatible `POST {url}/v1/audio/speech`: this project's gateway or any other.

    A style is sent as the control tag in front of the text, as Step-Audio's TTS model takes it.
    """

    kind: Literal["speech"]
    url: HttpUrl  # up to and without /v1
    model: _Word
    api_key_env: _Word | None = None  # the variable that holds the key: recipes are committed
    concurrency: int = Field(default=4, ge=1, le=256)  # requests in flight
    timeout_s: float = Field(default=120, gt=0, le=3600)  # of one request
    attempts: int = Field(default=6, ge=1, le=50)


class SpeakerFilter(_Part):
    """Refuses speech that is not by the voice asked for, by the CAM++ embedding of a TTS checkpoint."""

    campplus: Path
    max_distance: float = Field(
        default=0.6, gt=0, le=2
    )  # 1 - cosine, against the voice's first plain sentence


_Bounds = tuple[float, float]


class Filters(_Part):
    """What is refused. A filter that is None does not run."""

    duration_s: _Bounds = (0.2, 30.0)
    level_db: _Bounds = (-45.0, -3.0)  # root mean square against full scale
    max_silence_share: float = Field(default=0.6, ge=0, le=1)
    max_clipped_share: float = Field(default=0.001, ge=0, le=1)
    max_word_errors: float | None = Field(default=None, ge=0, le=10)  # rate; English texts of the domain only
    text_similarity: float = Field(default=1.0, gt=0, le=1)  # of letter triples; 1 refuses equal texts only
    audio_bits: int | None = Field(default=None, ge=0, le=3)  # of 256 that may differ in an audio duplicate
    speaker: SpeakerFilter | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        for name in ("duration_s", "level_db"):
            low, high = getattr(self, name)
            if not low < high:
                raise ValueError(f"{name} is [least, most]; {low:g} is not below {high:g}")
        return self


class TokenizerSource(_Part):
    """The two tokenizers: a model folder here, or a tokenizer pod or gateway."""

    models: Path | None = None
    url: HttpUrl | None = None
    attempts: int = Field(default=6, ge=1, le=50)
    timeout_s: float = Field(default=60, gt=0, le=3600)

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.models is None) == (self.url is None):
            raise ValueError("give either models (a folder) or url")
        return self


class Output(_Part):
    """What a shard holds."""

    samples_per_shard: int = Field(default=500, ge=1, le=100_000)
    audio: Literal["flac", "wav", "none"] = "flac"


class Recipe(_Part):
    """A whole recipe, valid."""

    name: _Name
    seed: int = Field(default=1, ge=0, le=2**31 - 1)
    licence: _Word
    texts: Annotated[tuple[Texts, ...], Field(min_length=1)]
    voices: Annotated[tuple[_Word, ...], Field(min_length=1)]
    styles: Annotated[tuple[str, ...], Field(min_length=1)] = ("",)
    combinations: Literal["all"] | Annotated[int, Field(ge=1)] = "all"
    teacher: Annotated[EspeakTeacher | SpeechTeacher, Field(discriminator="kind")]
    filters: Filters = Filters()
    tokenizer: TokenizerSource | None = None
    output: Output = Output()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for name in ("voices", "styles"):
            given = getattr(self, name)
            if len(set(given)) != len(given):
                raise ValueError(f"{name} names one twice")
        if isinstance(self.teacher, EspeakTeacher) and (unknown := set(self.styles) - set(STYLES)):
            known = ", ".join(repr(name) for name in STYLES)
            raise ValueError(f"styles: espeak cannot do {sorted(unknown)}; it does {known}")
        if self.combinations != "all" and self.combinations > len(self.voices) * len(self.styles):
            raise ValueError("combinations is more than voices times styles")
        if self.output.audio == "none" and self.tokenizer is None:
            raise ValueError("output.audio is none and there is no tokenizer: nothing would be written")
        return self


def read_recipe(path: Path) -> Recipe:
    """The recipe in a YAML file, its paths made absolute; raises ConfigError that names the field."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(what=f"{path} has more than {MAX_BYTES:,} bytes", cure="give a recipe")
        data = yaml.load(path.read_text("utf-8"), _PlainLoader)  # noqa: S506 - a SafeLoader, stricter
    except OSError as error:
        raise ConfigError(what=f"the recipe cannot be read: {error}", cure="give its path") from None
    except (yaml.YAMLError, UnicodeDecodeError, ValueError) as error:
        raise ConfigError(what=f"{path} is not plain YAML: {error}", cure="correct it") from None
    except RecursionError:
        raise ConfigError(what=f"{path} has fields within fields without end", cure="correct it") from None
    if not isinstance(data, dict):
        raise ConfigError(what=f"{path} is not a mapping of fields", cure="start from the docs' example")
    try:
        recipe = Recipe.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "the recipe"
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise ConfigError(what=f"{path}: {field}: {first['msg']}{more}", cure="correct it") from None
    return _with_absolute_paths(recipe, path.absolute().parent)


def recipe_hash(recipe: Recipe) -> str:
    """SHA-256 of all that the recipe says, and of the texts that it points to."""
    digest = hashlib.sha256()
    digest.update(json.dumps(portable(recipe), sort_keys=True, ensure_ascii=False).encode())
    for source in recipe.texts:
        if source.file is not None:
            with source.file.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def portable(recipe: Recipe) -> dict[str, Any]:
    """The recipe as data, folders reduced to their names: moving a folder does not change a recipe."""
    data = recipe.model_dump(mode="json")
    for source in data["texts"]:
        source["file"] = source["file"] and Path(source["file"]).name
    if recipe.tokenizer and recipe.tokenizer.models:
        data["tokenizer"]["models"] = recipe.tokenizer.models.name
    if recipe.filters.speaker:
        data["filters"]["speaker"]["campplus"] = recipe.filters.speaker.campplus.name
    return data


def _with_absolute_paths(recipe: Recipe, folder: Path) -> Recipe:
    def absolute(path: Path | None, field: str) -> Path | None:
        try:
            return None if path is None else folder / path.expanduser()
        except RuntimeError as error:  # a home that is not there
            raise ConfigError(what=f"{field}: {path}: {error}", cure="correct the path") from None

    texts = tuple(
        source.model_copy(update={"file": absolute(source.file, f"texts.{number}.file")})
        for number, source in enumerate(recipe.texts)
    )
    for number, source in enumerate(texts):
        if source.file is not None and not source.file.is_file():
            raise ConfigError(what=f"texts.{number}.file: {source.file} is no file", cure="correct the path")
    update: dict[str, Any] = {"texts": texts}
    if recipe.tokenizer:
        models = absolute(recipe.tokenizer.models, "tokenizer.models")
        update["tokenizer"] = recipe.tokenizer.model_copy(update={"models": models})
    if speaker := recipe.filters.speaker:
        campplus = absolute(speaker.campplus, "filters.speaker.campplus")
        moved = speaker.model_copy(update={"campplus": campplus})
        update["filters"] = recipe.filters.model_copy(update={"speaker": moved})
    return recipe.model_copy(update=update)


class _PlainLoader(yaml.SafeLoader):
    """No aliases (a small file could unfold into gigabytes) and no key twice (the first would be lost)."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not taken")
        node: yaml.Node | None = super().compose_node(parent, index)
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        if twice := {key for key in keys if isinstance(key, str) and keys.count(key) > 1}:
            raise yaml.YAMLError(f"{', '.join(sorted(twice))} stands twice in one place")
        return super().construct_mapping(node, deep)
