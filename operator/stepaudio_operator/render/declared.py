"""What gateways are given of the voices that stand in Git: one ConfigMap, and leave to read recordings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stepaudio_operator import names
from stepaudio_operator.render.objects import child
from stepaudio_operator.voices import object_of


def config_map(owner: Mapping[str, Any], entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The ConfigMap of the deployment `owner`."""
    name = owner["metadata"]["name"]
    made = child(
        owner,
        api_version="v1",
        kind="ConfigMap",
        name=names.voices(name),
        labels=names.child_labels(name, names.GATEWAY),
    )
    made["data"] = {names.VOICES_KEY: object_of(owner, entries)}
    return made


def rules(owner: Mapping[str, Any], entries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What the gateway's Role allows for it: that ConfigMap, and those of the recordings, by name."""
    files = (entry.get(what) for entry in entries for what in ("wave", "consentRecording"))
    recordings = sorted({file["configMap"] for file in files if file})
    allowed = [_rule([names.voices(owner["metadata"]["name"])], ["get", "list", "watch"])]
    return allowed + ([_rule(recordings, ["get"])] if recordings else [])


def _rule(named: list[str], verbs: list[str]) -> dict[str, Any]:
    return {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": named, "verbs": verbs}
