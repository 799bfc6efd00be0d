"""Which part of a live object is ours, and whether it still says what we want. Pure.

Server-side apply records for every field who set it last (`metadata.managedFields`). The fields recorded for
our manager, taken out of the live object, equal the object that we last applied: a field that somebody else
changed is no longer recorded as ours and is missing, a field that we no longer want is still there. So
comparing digests of the two finds every difference, across restarts, without storing anything.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from stepaudio_operator.quantities import amount

Raw = Mapping[str, Any]

_HOLD_QUANTITIES = frozenset({"limits", "requests"})  # maps of quantities, which the server rewrites
_ARE_QUANTITIES = frozenset({"sizeLimit"})
_IDENTITY = frozenset({"name", "namespace", "uid", "resourceVersion"})
# Where none of these is in an object's text, its canonical form is the object itself: most objects are quick.
_MARKS = (*(f'"{name}":' for name in _HOLD_QUANTITIES | _ARE_QUANTITIES), "null", "{}", "[]")
# What nearly every value is, first: this is asked millions of times, and an abstract class answers slowly.
_LEAVES = (str, int, float, type(None))
_MAPS = (dict, Mapping)


def owned(live: Raw, manager: str) -> dict[str, Any] | None:
    """The fields of `live` that `manager` set by server-side apply; None where it never applied it."""
    for entry in live["metadata"].get("managedFields") or ():
        if (
            entry.get("manager") == manager
            and entry.get("operation") == "Apply"
            and not entry.get("subresource")
        ):
            extracted = _extract(live, entry.get("fieldsV1") or {})
            return extracted if isinstance(extracted, dict) else {}
    return None


def wanted(desired: Raw) -> dict[str, Any]:
    """The fields that applying `desired` makes ours."""
    fields = {key: value for key, value in desired.items() if key not in ("apiVersion", "kind", "metadata")}
    metadata = {key: value for key, value in desired["metadata"].items() if key not in _IDENTITY}
    return {"metadata": metadata, **fields}


def digest(fields: Raw | None) -> bytes:
    """16 bytes that are equal for equal fields; empty values and the spelling of quantities do not count."""
    text = _dump(fields)
    if any(mark in text for mark in _MARKS):
        text = _dump(_canonical(fields, False))
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


_dump = json.JSONEncoder(sort_keys=True, separators=(",", ":"), default=dict).encode


def merge_patch(old: Raw, new: Raw) -> dict[str, Any]:
    """The smallest JSON merge patch that turns `old` into `new`; empty where they are equal."""
    patch: dict[str, Any] = {key: None for key in old if key not in new}
    for key, value in new.items():
        before = old.get(key)
        if before == value:
            continue
        if isinstance(value, Mapping) and isinstance(before, Mapping):
            patch[key] = merge_patch(before, value)
        else:
            patch[key] = value
    return patch


def _extract(value: Any, fields: Raw) -> Any:
    if not fields:
        return value  # a leaf: the whole value is owned
    if isinstance(value, Mapping):
        return {
            step[2:]: _extract(value[step[2:]], below)
            for step, below in fields.items()
            if step.startswith("f:") and step[2:] in value
        }
    if isinstance(value, list):
        keyed = [(json.loads(step[2:]), below) for step, below in fields.items() if step.startswith("k:")]
        plain = [json.loads(step[2:]) for step in fields if step.startswith("v:")]
        items: list[Any] = []
        for item in value:
            if item in plain:
                items.append(item)
                continue
            for key, below in keyed:
                if all(item.get(name) == part for name, part in key.items()):
                    items.append(_extract(item, below))
                    break
        return items
    return value


def _canonical(value: Any, quantities: bool) -> Any:
    if isinstance(value, _LEAVES):
        return value
    if isinstance(value, _MAPS):
        items = {
            key: _canonical(item, key in _HOLD_QUANTITIES or key in _ARE_QUANTITIES)
            if not quantities or isinstance(item, _MAPS)
            else _quantity(item)
            for key, item in value.items()
        }
        return {
            key: _quantity(item) if key in _ARE_QUANTITIES else item
            for key, item in items.items()
            if item not in (None, {}, [])
        }
    if isinstance(value, list | tuple):
        return [_canonical(item, False) for item in value]
    return value


def _quantity(value: Any) -> Any:
    """One spelling for all spellings of a quantity; anything else as it is."""
    much = amount(str(value))
    return value if much is None else f"{much.normalize():f}"
