"""Configuration files in YAML, read as plain data: tags that name classes or functions never call them.

`cosyvoice.yaml` is written for hyperpyyaml, where `!new:a.b.C` makes an object, `!name:a.b.f` a partial
function, `!apply:a.b.f` a call, and `!ref <key[sub]>` repeats an earlier value. Here `!new:` and `!name:`
become their mapping with the name under CLASS, `!apply:` becomes its name, and references are followed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from stepaudio_runtime.checkpoints.files import read_text
from stepaudio_runtime.checkpoints.presence import CURE
from stepaudio_runtime.errors import ModelFileError

CLASS = "!class"
_MAX_DEPTH = 20
_REFERENCE = re.compile(r"<([^<>\[\]]+)((?:\[[^\[\]]+\])*)>")


@dataclass(frozen=True)
class _Reference:
    text: str


class _PlainLoader(yaml.SafeLoader):
    """SafeLoader plus the four tags, as data."""


def _named(loader: yaml.SafeLoader, name: str, node: yaml.Node) -> dict[str, Any]:
    if isinstance(node, yaml.MappingNode):
        return {CLASS: name, **{str(k): v for k, v in loader.construct_mapping(node, deep=True).items()}}
    return {CLASS: name}


def _reference(loader: yaml.SafeLoader, node: yaml.Node) -> _Reference:
    return _Reference(str(node.value))


for _tag in ("!new:", "!name:", "!apply:", "!module:"):
    _PlainLoader.add_multi_constructor(_tag, _named)
for _tag in ("!ref", "!copy"):
    _PlainLoader.add_constructor(_tag, _reference)


@dataclass(frozen=True)
class Section:
    """A mapping of a configuration file that knows where it stands, so that an error names the key."""

    file: Path
    path: str
    data: dict[str, Any]

    @property
    def named(self) -> str:
        """Last part of the class that the section's tag names; empty without a tag."""
        return str(self.data.get(CLASS, "")).rpartition(".")[2]

    def section(self, key: str) -> Section:
        """The mapping under `key`."""
        return Section(self.file, self._at(key), self._typed(key, dict, "a mapping"))

    def integer(self, key: str) -> int:
        """A positive integer."""
        value: int = self._typed(key, int, "a positive integer")
        if isinstance(value, bool) or value <= 0:
            raise self.wrong(key, f"is {value!r}, not a positive integer")
        return value

    def integers(self, key: str) -> tuple[int, ...]:
        """A list of positive integers."""
        values = self._typed(key, list, "a list of integers")
        if not values or not all(type(value) is int and value > 0 for value in values):
            raise self.wrong(key, f"is {values!r}, not a list of positive integers")
        return tuple(values)

    def integer_lists(self, key: str) -> tuple[tuple[int, ...], ...]:
        """A list of lists of positive integers."""
        values = self._typed(key, list, "a list of lists")
        return tuple(Section(self.file, self._at(key), {"": value}).integers("") for value in values)

    def number(self, key: str) -> float:
        """A positive number, as float."""
        value = self._typed(key, (int, float), "a number")
        if isinstance(value, bool) or not 0 < value < float("inf"):
            raise self.wrong(key, f"is {value!r}, not a positive number")
        return float(value)

    def expect(self, key: str, *allowed: object) -> None:
        """What the code computes is fixed: `key` is absent or one of `allowed`."""
        if key in self.data and self.data[key] not in allowed:
            raise self.wrong(key, f"is {self.data[key]!r}, but only {allowed[0]!r} is computed here")

    def expect_named(self, name: str) -> None:
        """The section's tag names this class of the reference."""
        if self.named != name:
            raise self.wrong("", f"is of class {self.named or 'none'}, but only {name} is computed here")

    def wrong(self, key: str, what: str) -> ModelFileError:
        """The error for a value that cannot be."""
        where = self._at(key) if key else self.path
        cure = f"{CURE}, or correct it"
        return ModelFileError("ModelConfigInvalid", file=self.file, what=f"{where} {what}", cure=cure)

    def _at(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path else key

    def _typed(self, key: str, kind: type | tuple[type, ...], words: str) -> Any:
        if key not in self.data:
            raise self.wrong(key, "is missing")
        value = self.data[key]
        if not isinstance(value, kind):
            raise self.wrong(key, f"is {value!r}, not {words}"[:200])
        return value


def read_yaml(path: Path) -> Section:
    """The file's top mapping, as plain data."""

    def invalid(what: str) -> ModelFileError:
        return ModelFileError("ModelConfigInvalid", file=path, what=what, cure=CURE)

    try:
        data = yaml.load(read_text(path), Loader=_PlainLoader)  # noqa: S506 - a SafeLoader with inert tags
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" in line {mark.line + 1}" if mark else ""
        raise invalid(f"not YAML{line}: {getattr(error, 'problem', None) or error}"[:200]) from error
    except RecursionError:
        raise invalid("nested too deeply") from None
    if not isinstance(data, dict):
        raise invalid("not a YAML mapping")
    try:
        return Section(path, "", _followed(data, data, 0))
    except LookupError as error:
        raise invalid(f"a reference leads nowhere: {error.args[0]}") from None


def _followed(value: Any, top: dict[str, Any], depth: int) -> Any:
    if depth > _MAX_DEPTH:
        raise LookupError("nested too deeply, or in a circle")
    if isinstance(value, _Reference):
        match = _REFERENCE.fullmatch(value.text.strip())
        if match is None:
            return value.text  # arithmetic on references: no value that is read here uses it
        found: Any = top
        for key in (match[1], *re.findall(r"\[([^\[\]]+)\]", match[2])):
            if not isinstance(found, dict) or key not in found:
                raise LookupError(value.text)
            found = found[key]
        return _followed(found, top, depth + 1)
    if isinstance(value, dict):
        return {key: _followed(item, top, depth + 1) for key, item in value.items()}
    if isinstance(value, list):
        return [_followed(item, top, depth + 1) for item in value]
    return value
