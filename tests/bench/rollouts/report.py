"""What became of the requests as JSON and as a section of docs/benchmarks.md."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[3] / "docs"
FILE = DOCS / "benchmarks" / "rollouts.json"
TITLE = "## Requests through rollouts, drains and rollbacks"
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
}


def read() -> dict[str, Any]:
    """What the last runs found."""
    return dict(json.loads(FILE.read_text())) if FILE.exists() else {}


def write(found: Mapping[str, Any]) -> None:
    """Replaces the JSON file and the section."""
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(json.dumps(found, indent=1) + "\n")
    page = DOCS / "benchmarks.md"
    old = page.read_text() if page.exists() else "# Benchmarks\n"
    before, _, rest = old.partition(TITLE + "\n")
    following = rest.find("\n## ")
    after = rest[following:] if following >= 0 else ""
    page.write_text(f"{before.rstrip()}\n\n{section(found)}{after}")


def section(found: Mapping[str, Any]) -> str:
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
    machine = found["machine"]
    return f"""{TITLE}

`make bench-rollouts` on {machine["cores"]} cores ({machine["processor"]}), {machine["memory_gib"]} GiB:
real kubelet and containers, the nano preset, two replicas of every pool, and six clients that talk with the
gateway without a pause or a retry, half of them over connections that they keep; one always has a long stream
of speech open. An answer that is not 200, breaks off, is shorter than the gateway counted, or has other words
than the one before is not whole (`tests/e2e/load.py`). The last columns: pods that were replaced, the most
streams that were open while a pod left, and how long the scenario took beside all else on this machine. By
kind, and what was seen: [rollouts.json](benchmarks/rollouts.json).

| what happened meanwhile | requests | of them streamed | failed | truncated | pods | streams | took |
|---|---|---|---|---|---|---|---|
{chr(10).join(rows)}
"""
