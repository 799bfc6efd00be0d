"""The part of a pod's affinity that is about nodes: as its owner gave it word for word, and what is added.

What is null counts as absent. What the API server will refuse is left as it is, for it says why.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

_PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_TERMS = "nodeSelectorTerms"
_MOST_NODES = 100  # terms of an affinity


def only(node: str) -> dict[str, Any]:
    """An affinity that lets a pod be on `node` alone."""
    return {"nodeAffinity": {_REQUIRED: {_TERMS: [_is(node)]}}}


def choose(pod: dict[str, Any], expressions: Sequence[dict[str, Any]]) -> None:
    """Keeps a pod's spec to nodes that match all `expressions` as well.

    The terms of a required affinity are alternatives, so the choice goes into each of them.
    """
    if not expressions or (required := _down(pod, "affinity", "nodeAffinity", _REQUIRED)) is None:
        return
    terms = required.get(_TERMS)
    if terms is None:
        required[_TERMS] = [{"matchExpressions": [*expressions]}]
    elif isinstance(terms, list) and all(isinstance(term, dict) for term in terms):
        # A term that says nothing matches no node: it must not begin to.
        required[_TERMS] = [_with(term, expressions) if any(term.values()) else term for term in terms]


def bind(pod: dict[str, Any], nodes: Iterable[str]) -> bool:
    """Keeps a pod's spec to `nodes`. False where its own affinity leaves no way to."""
    part = _down(pod, "affinity", "nodeAffinity")
    if part is None:
        return False
    unsaid = part.get(_REQUIRED) is None
    own = part.get(_REQUIRED) or {_TERMS: [{}]}
    if not isinstance(own, dict) or not isinstance(own.get(_TERMS), list):
        return False
    # Terms are alternatives: each of the pod's own with each of the nodes, which is a field of its own.
    free = [t for t in own[_TERMS] if isinstance(t, dict) and "matchFields" not in t]
    said = [t for t in free if any(t.values()) or unsaid]  # else it matches no node
    terms = [{**term, **_is(node)} for term in said for node in sorted(nodes)]
    if not terms or len(terms) > _MOST_NODES:
        return False
    part[_REQUIRED] = {_TERMS: terms}
    return True


def prefer(pod: dict[str, Any], nodes: Iterable[str]) -> None:
    """`nodes` come first for a pod's spec."""
    _like(pod, [_is(node) for node in sorted(nodes)[:_MOST_NODES]])


def avoid(pod: dict[str, Any], nodes: Sequence[str]) -> None:
    """`nodes` come last for a pod's spec."""
    if nodes:
        _like(pod, [{"matchFields": [_named("NotIn", node) for node in nodes]}])


def _like(pod: dict[str, Any], preferences: list[dict[str, Any]]) -> None:
    if not preferences or (part := _down(pod, "affinity", "nodeAffinity")) is None:
        return
    own = part.get(_PREFERRED) or []
    if isinstance(own, list):
        part[_PREFERRED] = [*own, *({"weight": 100, "preference": each} for each in preferences)]


def _down(pod: dict[str, Any], *steps: str) -> dict[str, Any] | None:
    """A part of a pod's spec, made where it is absent; None where something else stands there."""
    part: Any = pod
    for step in steps:
        if part.get(step) is None:
            part[step] = {}
        part = part[step]
        if not isinstance(part, dict):
            return None
    return part


def _with(term: dict[str, Any], expressions: Sequence[dict[str, Any]]) -> dict[str, Any]:
    own = term.get("matchExpressions") or []
    return {**term, "matchExpressions": [*own, *expressions]} if isinstance(own, list) else term


def _is(node: str) -> dict[str, Any]:
    return {"matchFields": [_named("In", node)]}


def _named(operator: str, node: str) -> dict[str, Any]:
    return {"key": "metadata.name", "operator": operator, "values": [node]}
