"""What pydantic found wrong with a spec, in our words: where, and what to do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ValidationError

_MESSAGES: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "missing": lambda c: "this field is required: add it",
    "literal_error": lambda c: f"must be one of {c['expected']}",
    "string_too_long": lambda c: f"at most {c['max_length']} characters",
    "string_too_short": lambda c: f"at least {c['min_length']} characters",
    "too_short": lambda c: f"at least {c['min_length']} entries",
    "too_long": lambda c: f"at most {c['max_length']} entries",
    "greater_than_equal": lambda c: f"must be at least {c['ge']}",
    "less_than_equal": lambda c: f"must be at most {c['le']}",
    "value_error": lambda c: str(c["error"]),
    "greater_than": lambda c: f"must be above {c['gt']:g}",
    "less_than": lambda c: f"must be below {c['lt']:g}",
    "string_pattern_mismatch": lambda c: f"must match {c['pattern']}",
}


def problems_of(invalid: ValidationError) -> list[tuple[str, str]]:
    """Path and message of everything that pydantic found."""
    problems = []
    for error in invalid.errors(include_url=False, include_input=False):
        path = "spec"
        for part in error["loc"]:
            path += f"[{part}]" if isinstance(part, int) else f".{part}"
        if error["type"] == "extra_forbidden":
            message = "there is no such field: remove it or correct its name"
        else:
            translate = _MESSAGES.get(error["type"])
            message = translate(error.get("ctx", {})) if translate else error["msg"]
        problems.append((path, message))
    return problems
