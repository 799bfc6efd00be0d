"""Every alert and recording rule of the chart does in Prometheus' own engine what `cases.yaml` says: it fires
when it should, after the time that it states and not a minute earlier, in these words, and not for what is
well.

promtool is built from its Go module by the first run that needs it.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from stepaudio_cluster import binaries
from stepaudio_cluster.errors import RequirementError

CASES = Path(__file__).parent / "cases.yaml"
RULES = Path(__file__).parents[3] / "charts/step-audio/files/prometheus/rules.yaml"


@pytest.fixture(scope="module")
def promtool() -> str:
    try:
        return binaries.promtool().path("promtool")
    except RequirementError as lacking:
        pytest.skip(f"no promtool on this machine: {lacking}")


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def alerts() -> dict[str, str]:
    """Name -> how long it has to hold."""
    return {rule["alert"]: rule["for"] for rule in rules() if "alert" in rule}


def records() -> set[str]:
    return {rule["record"] for rule in rules() if "record" in rule}


def held_against(promtool: str, cases: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [promtool, "test", "rules", str(cases)], capture_output=True, text=True, check=False
    )


def test_the_rules_do_what_the_cases_say(promtool: str) -> None:
    done = held_against(promtool, CASES)
    assert done.returncode == 0, done.stdout + done.stderr


def minutes(text: str) -> int:
    """`90m` or `1h`."""
    return int(text[:-1]) * {"m": 1, "h": 60}[text[-1]]


def test_every_rule_has_its_cases() -> None:
    tests = yaml.safe_load(CASES.read_text())["tests"]
    assert {case["expr"] for test in tests for case in test.get("promql_expr_test", ())} == records()
    fires, silent = set(), set()
    for test in tests:
        for case in test.get("alert_rule_test", ()):
            at = (test["name"], case["alertname"], minutes(case["eval_time"]))
            (fires if case["exp_alerts"] else silent).add(at)
    first = {(where, name): minute for where, name, minute in sorted(fires, reverse=True)}
    assert {name for _, name in first} == set(alerts())
    assert {(where, name, minute - 1) for (where, name), minute in first.items()} <= silent


def test_a_rule_that_is_broken_is_found(promtool: str, tmp_path: Path) -> None:
    broken = yaml.safe_load(RULES.read_text())
    for rule in (rule for group in broken["groups"] for rule in group["rules"]):
        if "alert" in rule:
            rule["for"] = f"{minutes(rule['for']) + 1}m"
        else:
            rule["expr"] = f"2 * ({rule['expr']})"
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(broken))
    cases = yaml.safe_load(CASES.read_text()) | {"rule_files": ["rules.yaml"]}
    (tmp_path / "cases.yaml").write_text(yaml.safe_dump(cases))
    done = held_against(promtool, tmp_path / "cases.yaml")
    said = done.stdout + done.stderr
    assert done.returncode == 1
    assert set(re.findall(r"alertname: (\w+)", said)) == set(alerts())
    assert set(re.findall(r'expr: "([\w:]+)"', said)) == records()
