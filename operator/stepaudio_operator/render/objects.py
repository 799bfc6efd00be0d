"""What every child has: its header with labels and owner."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def owner_reference(owner: Mapping[str, Any]) -> dict[str, Any]:
    """Controlling owner reference to `owner`: the garbage collector removes the child with it."""
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
    }


def child(
    owner: Mapping[str, Any],
    *,
    api_version: str,
    kind: str,
    name: str,
    labels: Mapping[str, str],
) -> dict[str, Any]:
    """Head of a child of `owner` in its namespace."""
    return {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": owner["metadata"]["namespace"],
            "labels": dict(labels),
            "ownerReferences": [owner_reference(owner)],
        },
    }
