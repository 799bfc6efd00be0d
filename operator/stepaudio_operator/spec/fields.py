"""What the fields of a spec are made of: the frozen base model, scalar types with bounds, cross-field rules.

Every bound stands here or in a `Field` and is carried into the CRD by `crd.py`; every cross-field rule is a
`Rule` with the same meaning in Python and in CEL. So the operator and the API server judge alike, which
`tests/contract/test_spec_schema.py` checks with generated specs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from types import UnionType
from typing import Annotated, Any, ClassVar, Union, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, WithJsonSchema
from pydantic.alias_generators import to_camel

# Patterns are written in the common part of Rust's, Go's and ECMA's regular expressions.
DNS_LABEL = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
SERVICE_LABEL = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"
DNS_SUBDOMAIN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
QUANTITY = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$"
DURATION = r"^[1-9][0-9]{0,4}(s|m|h)$"
GPU_MEMORY = r"^[1-9][0-9]{0,3}GB$"
LABEL_VALUE = r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$"
ENV_NAME = r"^[-._a-zA-Z][-._a-zA-Z0-9]*$"
IMAGE_TAG = r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$"
# Host with an optional port, then path parts: `registry.example.com:5000/team`; empty for none.
REGISTRY = r"^([a-zA-Z0-9]([-a-zA-Z0-9.]*[a-zA-Z0-9])?(:[0-9]{1,5})?(/[a-z0-9]([-a-z0-9._]*[a-z0-9])?)*)?$"
ABSOLUTE_PATH = r"^/[^:]*$"
RELATIVE_PATH = r"^[^/].*$"
SECONDS = {"s": 1, "m": 60, "h": 3600}


def _integral(value: Any) -> Any:
    # JSON has one kind of number: the API server takes 2.0 for an integer.
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _quantity(value: Any) -> Any:
    # The API server takes `cpu: 2` as well as `cpu: "2"`; a negative one is refused by the pattern below.
    value = _integral(value)
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Int = Annotated[int, BeforeValidator(_integral)]
Name = Annotated[str, StringConstraints(pattern=DNS_SUBDOMAIN, min_length=1, max_length=253)]
LabelName = Annotated[str, StringConstraints(pattern=DNS_LABEL, min_length=1, max_length=63)]
Text = Annotated[str, StringConstraints(max_length=4096)]
Word = Annotated[str, StringConstraints(max_length=316)]
Duration = Annotated[str, StringConstraints(pattern=DURATION)]
Quantity = Annotated[
    str,
    BeforeValidator(_quantity),
    StringConstraints(pattern=QUANTITY, max_length=32),
    WithJsonSchema({"x-kubernetes-int-or-string": True, "pattern": QUANTITY, "maxLength": 32, "minimum": 0}),
]
# An object of Kubernetes' own API: its shape is judged by the API server when the pod is made.
Native = Annotated[
    dict[str, Any],
    WithJsonSchema({"type": "object", "x-kubernetes-preserve-unknown-fields": True, "maxProperties": 64}),
    Field(max_length=64),
]


def seconds(duration: str) -> int:
    """A checked `Duration` in seconds: `10m` is 600."""
    return int(duration[:-1]) * SECONDS[duration[-1]]


@dataclass(frozen=True)
class Rule:
    """One cross-field rule of a model: `cel` for the API server, `holds` for us, one `message` for both.

    `field` is the camelCase name of the field that the message is about. `transition` rules compare with
    the stored object (`oldSelf`) and are the API server's alone: `holds` is then always true.
    """

    cel: str
    message: str
    field: str
    holds: Callable[[Any], bool]
    transition: bool = False


class Model(BaseModel):
    """A part of a spec: camelCase in YAML, unknown fields refused, frozen."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, alias_generator=to_camel, populate_by_name=False
    )
    RULES: ClassVar[tuple[Rule, ...]] = ()
    # camelCase name of a list field -> keys of its items: a map for server-side apply, no item twice.
    LIST_KEYS: ClassVar[Mapping[str, str]] = {}

    def broken_rules(self, path: str) -> list[tuple[str, str]]:
        """(field path, message) of every rule that this part or a part below it breaks."""
        problems = [(f"{path}.{r.field}", r.message) for r in self.RULES if not r.holds(self)]
        for name, alias in _branches(type(self)):
            value = getattr(self, name)
            for place, part in _parts(value, f"{path}.{alias}"):
                problems += part.broken_rules(place)
            if alias in self.LIST_KEYS and value:
                problems += _twice(value, f"{path}.{alias}", self.LIST_KEYS[alias])
        return problems


@cache
def _branches(model: type[Model]) -> tuple[tuple[str, str], ...]:
    """Name and alias of the fields below which there may be rules; most are words and numbers."""
    return tuple(
        (name, info.alias or name)
        for name, info in model.model_fields.items()
        if any(
            get_origin(each) is tuple or (isinstance(each, type) and issubclass(each, Model))
            for each in _flat(info.annotation)
        )
    )


def without_nulls(value: Any, shape: Any) -> Any:
    """`value` without the nulls that the API server prunes before it judges: those of known fields and of
    maps. A null that is an item of a list, or under an unknown name, stays and is refused. `shape`: its type.
    """
    if isinstance(value, Mapping):
        if isinstance(shape, type) and issubclass(shape, Model):
            fields = _shapes(shape)
            return {
                k: without_nulls(v, fields.get(k))
                for k, v in value.items()
                if v is not None or k not in fields
            }
        return {k: v for k, v in value.items() if v is not None}
    if isinstance(value, list) and get_origin(shape) is tuple:
        of = _shape(get_args(shape)[0])
        return [without_nulls(item, of) for item in value]
    return value


@cache
def _shapes(model: type[Model]) -> Mapping[str, Any]:
    """What stands under each name: found once, for every spec of a thousand deployments has the same."""
    return {info.alias or name: _shape(info.annotation) for name, info in model.model_fields.items()}


def _shape(annotation: Any) -> Any:
    """The first alternative of a type that is not null."""
    return next((each for each in _flat(annotation) if each is not type(None)), None)


def _flat(annotation: Any) -> list[Any]:
    """The alternatives of an optional or annotated type."""
    if get_origin(annotation) is Annotated:
        return _flat(get_args(annotation)[0])
    if isinstance(annotation, UnionType) or get_origin(annotation) is Union:
        return [flat for branch in get_args(annotation) for flat in _flat(branch)]
    return [annotation]


def _parts(value: Any, path: str) -> list[tuple[str, Model]]:
    if isinstance(value, Model):
        return [(path, value)]
    if isinstance(value, tuple):
        return [(f"{path}[{i}]", item) for i, item in enumerate(value) if isinstance(item, Model)]
    return []


def _twice(items: tuple[Any, ...], path: str, key: str) -> list[tuple[str, str]]:
    seen: set[Any] = set()
    problems = []
    for i, item in enumerate(items):
        value = item.get(key) if isinstance(item, Mapping) else item.model_dump(by_alias=True)[key]
        if value in seen:
            problems.append((f"{path}[{i}]", f"{key} {value!r} stands here twice: remove one"))
        seen.add(value)
    return problems


def as_written(part: BaseModel) -> dict[str, Any]:
    """A part of a spec as JSON, by the names that users write and without what they left out."""
    return part.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True)
