"""docs/metrics.md lists every series that the code has; each query of the chart's rules and dashboards parses
and names only series that exist; so do the examples of autoscaling; each alert stands in the docs; those on
pools fire for the pools that they mean.
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import promql_parser as promql
import pytest
import yaml
from prometheus_client import CollectorRegistry
from prometheus_client.registry import Collector

from stepaudio_operator.metrics import Metrics
from stepaudio_operator.records import PoolRecord
from stepaudio_runtime.gateway.metrics import GatewayMetrics
from stepaudio_runtime.health.canary import CanaryPlan, Record
from stepaudio_runtime.health.metrics import PodMetrics
from stepaudio_runtime.health.state import PodState
from stepaudio_runtime.settings import TokenizerSettings
from stepaudio_runtime.tokenizer.dual import DualTokenizer
from stepaudio_runtime.tokenizer.service import TokenizerService, tokenizer_app
from stepaudio_runtime.tts.metrics import SpeechMetrics
from tests.contract.test_chart import objects

ROOT = Path(__file__).parents[2]
DOCS = (ROOT / "docs/metrics.md").read_text()
FILES = ROOT / "charts/step-audio/files"
RULES = [
    r for g in yaml.safe_load((FILES / "prometheus/rules.yaml").read_text())["groups"] for r in g["rules"]
]
PARTS = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("_total",)}


def families(registry: Collector) -> Iterator[Any]:
    yield from (family for family in registry.collect() if family.name.startswith("stepaudio_"))


async def every_family() -> dict[str, Any]:
    """name as documented -> family, of every process of the project."""
    metrics = Metrics()
    found: list[Any] = [*families(metrics.registry), *families(metrics.pools)]
    gateway = PodMetrics(PodState("gateway"))
    GatewayMetrics(gateway)
    found += families(gateway.registry)
    tts = CollectorRegistry()
    SpeechMetrics(tts)
    found += families(tts)
    canary = CanaryPlan(Record(Path("never-written.json")), interval_s=60, timeout_s=60)
    service = TokenizerService(PodState("tokenizer"), no_model, TokenizerSettings(), canary)
    app = tokenizer_app(service)
    text = await metrics_text(app)
    found += [f for f in parsed(text) if f.name.startswith("stepaudio_tokenizer")]
    return {f"{f.name}_total" if f.type == "counter" else f.name: f for f in found}


def no_model(state: PodState) -> DualTokenizer:
    raise AssertionError("the model is not needed to say which series there are")


async def metrics_text(app: Any) -> str:
    import httpx

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://pod") as http:
        return (await http.get("/metrics")).text


def parsed(text: str) -> list[Any]:
    from prometheus_client.parser import text_string_to_metric_families

    return list(text_string_to_metric_families(text))


def documented() -> set[str]:
    rows = (line for line in DOCS.splitlines() if line.startswith("| `stepaudio_"))
    return {name for row in rows for name in re.findall(r"`(stepaudio_[a-z_]+)`", row.split("|")[1])}


async def test_the_docs_list_every_series_and_no_other() -> None:
    assert documented() == set(await every_family())


def selectors(query: str) -> Iterator[promql.VectorSelector]:
    """Every selector of a query. Raises ValueError where it does not parse."""

    def below(node: Any) -> Iterator[promql.VectorSelector]:
        if isinstance(node, promql.VectorSelector):
            yield node
        elif isinstance(node, promql.MatrixSelector):
            yield node.vector_selector
        elif isinstance(node, promql.BinaryExpr):
            yield from below(node.lhs)
            yield from below(node.rhs)
        elif isinstance(node, promql.Call):
            for argument in node.args:
                yield from below(argument)
        elif isinstance(
            node, promql.AggregateExpr | promql.ParenExpr | promql.UnaryExpr | promql.SubqueryExpr
        ):
            yield from below(node.expr)
        elif not isinstance(node, promql.NumberLiteral | promql.StringLiteral):
            raise TypeError(f"unknown part {node!r}")

    yield from below(promql.parse(query))


def queries() -> dict[str, str]:
    """Where it stands -> query, with Grafana's variables filled in."""
    found = {f"rule {r.get('alert') or r['record']}": r["expr"] for r in RULES}
    for path in sorted((FILES / "dashboards").glob("*.json")):
        board = json.loads(path.read_text())
        for panel in board["panels"]:
            for target in panel["targets"]:
                place = f"{path.stem}: {panel['title']} {target['refId']}"
                found[place] = re.sub(r"\$[a-z]+", "x", target["expr"])
        for variable in board["templating"]["list"]:
            if variable["type"] == "query":
                inner = re.fullmatch(r"label_values\((.*), [a-z]+\)", variable["query"])
                assert inner is not None, variable
                found[f"{path.stem}: ${variable['name']}"] = re.sub(r"\$[a-z]+", "x", inner.group(1))
    found |= {f"examples: {query}": query for query in autoscaling_queries()}
    return found


def autoscaling_queries() -> Iterator[str]:
    for trigger in example("keda")["spec"]["triggers"]:
        yield trigger["metadata"]["query"]
    for metric in example("hpa")["spec"]["metrics"]:
        yield metric["pods"]["metric"]["name"]


def example(name: str) -> dict[str, Any]:
    body: dict[str, Any] = yaml.safe_load((ROOT / f"examples/autoscaling/{name}.yaml").read_text())
    return body


def test_the_examples_scale_a_pool_and_are_valid() -> None:
    for name in ("hpa", "keda"):
        target = {"apiVersion": "stepaudio.io/v1alpha1", "kind": "StepAudioPool", "name": "prod-tts"}
        assert example(name)["spec"]["scaleTargetRef"] == target
    kubernetes_validate.validate(example("hpa"), "1.31", strict=True)


async def test_every_query_parses_and_names_series_that_exist() -> None:
    known = {rule["record"] for rule in RULES if "record" in rule}
    known |= set(re.findall(r"`(vllm:[a-z_]+)`", DOCS))
    for name, family in (await every_family()).items():
        known |= {f"{name}{part}" for part in PARTS["histogram"]} if family.type == "histogram" else {name}
    used = {place: {s.name for s in selectors(query)} for place, query in queries().items()}
    unknown = {place: sorted(names - known) for place, names in used.items() if names - known}
    assert unknown == {}
    assert len(used) > 50


@pytest.mark.parametrize("wrong", ["sum(rate(x[5m])", "rate(x)", "x{a=}"])
def test_a_query_that_is_wrong_is_found(wrong: str) -> None:
    with pytest.raises(ValueError):
        list(selectors(wrong))


def test_every_alert_says_what_to_do_and_stands_in_the_docs() -> None:
    alerts = {rule["alert"]: rule for rule in RULES if "alert" in rule}
    assert set(alerts) == set(re.findall(r"`(StepAudio[A-Za-z]+)`", DOCS.split("## Alerts")[1]))
    for rule in alerts.values():
        assert set(rule["annotations"]) == {"summary", "cure"}
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert re.fullmatch(r"\d+[mh]", rule["for"])


COMPARE = {"==": operator.eq, ">": operator.gt, "<": operator.lt}


def firing(alert: str, text: str) -> list[dict[str, str]]:
    """Labels of the samples of one scrape for which an alert of the form `series == number` would fire."""
    (rule,) = (rule for rule in RULES if rule.get("alert") == alert)
    query = promql.parse(rule["expr"])
    assert isinstance(query, promql.BinaryExpr)
    assert isinstance(query.lhs, promql.VectorSelector)
    assert isinstance(query.rhs, promql.NumberLiteral)
    assert not query.lhs.matchers.matchers
    samples = (sample for family in parsed(text) for sample in family.samples)
    compare, name, bound = COMPARE[str(query.op)], query.lhs.name, query.rhs.val
    found = [dict(s.labels) for s in samples if s.name == name and compare(s.value, bound)]
    named = set(re.findall(r"\$labels\.([a-z_]+)", rule["annotations"]["summary"]))
    assert all(named <= set(labels) for labels in found)
    return found


def test_alerts_on_pools_fire_for_the_pools_that_they_mean() -> None:
    def pool(component: str, ready: str, stalled: str, drift: str) -> PoolRecord:
        fine = [
            {"type": "Ready", "status": ready, "reason": "R", "message": ""},
            {"type": "Stalled", "status": stalled, "reason": "NoGpu", "message": ""},
            {"type": "GpuMemoryDrift", "status": drift, "reason": "MoreThanEstimated", "message": ""},
        ]
        status = {"conditions": fine, "vram": {"card": "85.9GB", "expected": "70.0GB", "measured": "80.0GB"}}
        metadata = {"name": f"prod-{component}", "namespace": "speech"}
        spec = {"deployment": "prod", "component": component}
        return PoolRecord.from_raw({"metadata": metadata, "spec": spec, "status": status})

    pools = [pool("chat", "True", "False", "True"), pool("tts", "False", "True", "False")]
    metrics = Metrics()
    metrics.follow(lambda: 0, lambda: 0, lambda: True, lambda kind: 0, lambda: pools)
    text = metrics.text().decode()
    chat, tts = ({"namespace": "speech", "deployment": "prod", "component": c} for c in ("chat", "tts"))
    alerts = ("StepAudioGpuMemoryDrifts", "StepAudioPoolStalled", "StepAudioPoolNotReady")
    assert {alert: firing(alert, text) for alert in (*alerts, "StepAudioOperatorBehind")} == {
        "StepAudioGpuMemoryDrifts": [{**chat, "reason": "MoreThanEstimated"}],
        "StepAudioPoolStalled": [{**tts, "reason": "NoGpu"}],
        "StepAudioPoolNotReady": [tts],
        "StepAudioOperatorBehind": [],
    }


def test_no_dashboard_has_two_panels_in_one_place() -> None:
    for path in (FILES / "dashboards").glob("*.json"):
        taken: set[tuple[int, int]] = set()
        for panel in json.loads(path.read_text())["panels"]:
            at = panel["gridPos"]
            cells = {
                (x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])
            }
            assert not cells & taken, (path.name, panel["title"])
            assert at["x"] + at["w"] <= 24
            taken |= cells


def test_the_chart_renders_them_where_asked() -> None:
    made = objects(*(f"--set=monitoring.{part}=true" for part in ("rules", "monitors", "dashboards")))
    kinds = sorted(kind for kind, _ in made.keys() - objects().keys())
    assert kinds == ["ConfigMap", "ConfigMap", "PodMonitor", "PrometheusRule", "ServiceMonitor"]
    (rule,) = (body for (kind, _), body in made.items() if kind == "PrometheusRule")
    assert rule["spec"] == yaml.safe_load((FILES / "prometheus/rules.yaml").read_text())
    for (kind, name), body in made.items():
        if kind == "ConfigMap":
            (text,) = body["data"].values()
            stem = name.rpartition("-")[2]
            assert json.loads(text) == json.loads((FILES / f"dashboards/{stem}.json").read_text())
