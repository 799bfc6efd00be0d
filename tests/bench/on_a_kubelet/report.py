"""What became of requests and of faults on a real kubelet, as JSON and as sections of docs/benchmarks.md."""

import json
import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[3] / "docs"
WHAT = {
    "surge": "every pool replaced, `Surge`",
    "in-place": "every pool replaced, `InPlace`",
    "canary": "speech and tokenizer replaced, `Canary` at 25 and 50 %",
    "bad-revision": "a revision of chat that cannot start and one of the tokenizer that runs out of memory,"
    " rolled back by themselves",
    "bad-canary": "a tokenizer that is too slow, rolled back by its canary",
    "node-drain": "`kubectl drain` of every pod",
    "scale-down": "every pool scaled to one replica and back to two",
    "delete": "a pod of every pool deleted",
    "operators": "two operators, the leading one killed while the tokenizer is replaced",
    "paused": "paused: a change and a lost pod wait until it no longer is",
    "keys": "gateways that begin to ask for keys, and a key that comes and goes",
    "voices": "a voice store is added, a voice created, its pod lost, the voice deleted",
    "release": "another release twice: the models move to a volume, and back",
    "release-killed": "the same, the operator killed every 40 s",
    "outage": "another release twice with `Recreate`: outages, in which requests are told when to come again",
    "release-fails": "another release, whose speech model is cut short: every pool goes back",
    "restart": "every pod restarted by an annotation",
    "retry": "a revision of chat that cannot start, tried again by an annotation, rolled back both times",
    "placement": "the tokenizer moves into the speech pods, and out again",
    "placement-fails": "the tokenizer is to move into speech pods that find no room, and into some that fail",
    "declared-voice": "a voice store is added, a voice of a StepAudioVoice comes, changes and goes",
    "kubelet": "the kubelet is silent, its node counts as lost, and the tokenizer is to be replaced then",
    "api-server": "the API server is killed and away for 60 s, then the tokenizer is replaced",
    "meddled-with": "a restart, labels, a variable, a number of pods, owners and a status by other hands",
    "operator-upgraded": "another version of the operator, and the first one again",
    "operator-without-role": "the operator's ClusterRole is gone, a pod lost and the operator begins anew",
    "operators-that-act": "two operators that both act, while the tokenizer is replaced",
    "operator-killed": "the operator killed three times, beside a declared voice and a download",
    "text-in-pieces": "text in pieces over WebSockets as well, and a speech pod deleted",
    "listeners": "listeners as well that leave in the middle or read slowly",
    "long-text": "twelve sentences in one request as well",
    "hpa": "a HorizontalPodAutoscaler takes one of two speech pods away, and adds one again",
    "asleep": "beside it: a tokenizer falls asleep and is woken by a request",
    "shared-models": "beside it: two deployments share one download",
    "node-local": "beside it: models on the node's own disk, of two revisions in turn",
    "training-data": "beside it: a StepAudioDataJob, of which it is the teacher",
    "hanging": "beside it: an engine that hangs with a request in flight",
    "without-operator": "no operator, and a deployment beside it is deleted meanwhile",
    "data-killed": "beside it: a StepAudioDataJob whose pods are killed and deleted",
    "download-killed": "beside it: a download that is killed and cut, then one of another revision",
    "node-avoided": "beside it: an engine that hangs twice on one node, which is avoided, then forgiven",
    "loads": "beside it: a speech model is loaded, and how far it is is told",
    "sent-away": "beside it: a tokenizer asleep, and a request that is told when to come again",
    "autoscaled": "beside it: a tokenizer that gets a second pod and loses it again",
    "restricted": "in another namespace: Pod Security `restricted`, default limits and a full quota",
    "voices-in-a-bucket": "beside it: a created voice in a bucket, spoken by two pods in turn, and deleted",
}


@dataclass(frozen=True)
class Section:
    """A part of docs/benchmarks.md and the JSON file behind it."""

    title: str
    file: Path
    render: Callable[[Mapping[str, Any]], str]

    def read(self) -> dict[str, Any]:
        """What the last runs found."""
        return dict(json.loads(self.file.read_text())) if self.file.exists() else {}

    def write(self, found: Mapping[str, Any]) -> None:
        """Replaces the JSON file and the section."""
        self.file.parent.mkdir(exist_ok=True)
        self.file.write_text(json.dumps(found, indent=1) + "\n")
        page = DOCS / "benchmarks.md"
        old = page.read_text() if page.exists() else "# Benchmarks\n"
        before, _, rest = old.partition(self.title + "\n")
        following = rest.find("\n## ")
        after = rest[following:] if following >= 0 else ""
        page.write_text(f"{before.rstrip()}\n\n{self.title}\n\n{self.render(found)}{after}")


def machine() -> dict[str, Any]:
    """What all shares."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next(
        (line.split(":", 1)[1].strip() for line in lines if "model name" in line), platform.machine()
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {"cores": os.cpu_count(), "processor": model, "memory_gib": round(memory, 1)}


def _where(found: Mapping[str, Any]) -> str:
    on = found["machine"]
    return f"on {on['cores']} cores ({on['processor']}), {on['memory_gib']} GiB"


def _rollouts(found: Mapping[str, Any]) -> str:
    """The section's markdown: a row a scenario, and their sum."""
    runs = {part: found[part] for part in WHAT if part in found}
    rows = [
        f"| {WHAT[part]} | {run['requests']:,} | {run['streamed']:,} | {run['failed']} | {run['truncated']}"
        f" | {run['replaced']} | {run['open streams while pods left'][1]} | {run['scenario_s']} s |"
        for part, run in runs.items()
    ]
    sums = [
        sum(run[what] for run in runs.values()) for what in ("requests", "streamed", "failed", "truncated")
    ]
    rows.append(f"| together | {sums[0]:,} | {sums[1]:,} | {sums[2]} | {sums[3]} | – | – | – |")
    return f"""`make bench-rollouts` {_where(found)}: real kubelet and
containers, the nano preset, two replicas of every pool, and six clients that talk with the gateway without
a pause or a retry, half of them over connections that they keep; one always has a long stream of speech open.
An answer that is not 200, breaks off, is shorter than the gateway counted, or has other words than the one
before is not whole (`tests/e2e/load.py`). The last columns: pods that were replaced, the most streams that
were open while a pod left, and how long the scenario took beside all else on this machine. By kind, and what
was seen: [rollouts.json](benchmarks/rollouts.json). Every request that a declared outage turns away counts as
failed; all of those were told when to come again.

| what happened meanwhile | requests | of them streamed | failed | truncated | pods | streams | took |
|---|---|---|---|---|---|---|---|
{chr(10).join(rows)}
"""


def _faults(found: Mapping[str, Any]) -> str:
    """A row a fault."""
    runs = {name: run for name, run in found.items() if name != "machine"}
    rows = [
        f"| {name} | `{run['reason']}` | {run['said_s']:.1f} s"
        f" | {'a person' if 'well_s' not in run else format(run['well_s'], '.0f') + ' s'} |"
        for name, run in runs.items()
    ]
    return f"""`make bench-faults` {_where(found)}: faults caused on the real kubelet, one after the other
(`tests/e2e/faults.py`). The time runs from `kubectl apply` of a deployment that cannot work, pods and images
included, to the reason in its condition; the last column, from the end of the cause to the models being
there. Goal: 30 s. The words: [faults.json](benchmarks/faults.json).

| cause | condition | said after | comes right by |
|---|---|---|---|
{chr(10).join(rows)}
"""


ROLLOUTS = Section(
    "## Requests through rollouts, drains and rollbacks", DOCS / "benchmarks" / "rollouts.json", _rollouts
)
FAULTS = Section("## Faults and their words", DOCS / "benchmarks" / "faults.json", _faults)
