"""The table of `docs/operator.md` that says which field replaces which pods is the one the code gives, and
no field of a deployment is missing in it.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stepaudio_operator import crd, names
from stepaudio_operator.foresight import effects
from stepaudio_operator.foresight.effects import Effect, effect
from stepaudio_operator.spec.deployment import DeploymentSpec

PAGE = Path(__file__).parents[2] / "docs" / "operator.md"
VOLUME = {"source": {"pvc": {"claimName": "models"}}}


def leaves(schema: dict[str, Any], at: str = "") -> Iterator[str]:
    """Paths of all fields below `spec` that hold no further fields."""
    for name, part in schema.get("properties", {}).items():
        path = f"{at}.{name}" if at else name
        if part.get("properties"):
            yield from leaves(part, path)
        else:
            yield path


def test_every_field_has_a_row() -> None:
    rows = set()
    for change in effects.CHANGES:
        pools = (
            effects.knowing(change.path.removeprefix("POOL.")) if change.path.startswith("POOL.") else [""]
        )
        rows |= {change.path.replace("POOL", pool) for pool in pools}
    fields = set(leaves(crd.schema(DeploymentSpec)))
    missing = {f for f in fields if not any(f == row or f.startswith(f"{row}.") for row in rows)}
    assert missing == set(), "add a Change of each to stepaudio_operator/foresight/effects.py"


def test_the_docs_hold_the_table_that_the_code_gives() -> None:
    # After a change: put what `stepaudio-operator fields` prints into docs/operator.md.
    assert effects.table() in PAGE.read_text()


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ({}, {"chat": {"maxModelLen": 512}}, Effect(frozenset({"chat"}), frozenset(), False)),
        ({}, {"tts": {"replicas": 3}}, Effect(frozenset(), frozenset(), False)),
        ({}, {"gateway": {"enabled": False}}, Effect(frozenset(), frozenset({"gateway"}), False)),
        ({}, {"runtime": {"version": "1.4.3"}}, Effect(frozenset(names.COMPONENTS), frozenset(), True)),
        (
            {"models": VOLUME},
            {"models": VOLUME, "runtime": {"version": "1.4.3"}},
            Effect(frozenset(names.COMPONENTS), frozenset(), False),
        ),
        ({}, {"models": VOLUME}, Effect(frozenset(names.MODEL_COMPONENTS), frozenset(), True)),
    ],
)
def test_an_effect_is_what_the_render_functions_come_to(
    before: dict[str, Any], after: dict[str, Any], expected: Effect
) -> None:
    base = {"preset": "nano", "runtime": {"version": "1.4.2"}}
    assert effect({**base, **before}, {**base, **after}) == expected
