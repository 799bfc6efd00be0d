"""The tools of the English domain, as OpenAI's `tools` describe them.

The nano chat model knows these three and no others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stepaudio_runtime.engine.domain.english import ROOMS, STATES, THINGS, UNITS


def _function(name: str, description: str, **properties: Mapping[str, Any]) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties, "required": list(properties)}
    return {"name": name, "description": description, "parameters": parameters}


FUNCTIONS: dict[str, dict[str, Any]] = {
    "switch": _function(
        "switch",
        "switch a thing on or off",
        room={"type": "string", "enum": list(ROOMS)},
        thing={"type": "string", "enum": list(THINGS)},
        state={"type": "string", "enum": list(STATES)},
    ),
    "timer": _function(
        "timer",
        "set a timer",
        count={"type": "integer"},
        unit={"type": "string", "enum": list(UNITS)},
    ),
    "time": _function("time", "tell the time"),
}
"""By name: what stands in `function` of an entry of `tools`."""
