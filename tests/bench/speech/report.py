"""The speech figures as JSON, as a section of docs/benchmarks.md, and as plots."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[3] / "docs"
FILE = DOCS / "benchmarks" / "speech.json"
TITLE = "## Speech"


def read() -> dict[str, Any]:
    """What the last runs found."""
    return dict(json.loads(FILE.read_text())) if FILE.exists() else {}


def write(found: Mapping[str, Any]) -> None:
    """Replaces the JSON file, the section and the plots."""
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(json.dumps(found, indent=1) + "\n")
    if {"hops", "windows"} <= found.keys():
        plots(found)
    page = DOCS / "benchmarks.md"
    old = page.read_text() if page.exists() else "# Benchmarks\n"
    before, _, rest = old.partition(TITLE + "\n")
    following = rest.find("\n## ")
    after = rest[following:] if following >= 0 else ""
    page.write_text(f"{before.rstrip()}\n\n{section(found)}{after}")


def section(found: Mapping[str, Any]) -> str:
    """The section's markdown: a row a figure, with its goal; what was not run is left out."""
    rows = [row for make in ROWS.values() for row in make(found)]
    machine = found["machine"]
    plot = "\n![Distance to offline, and agreement of windowed ids](benchmarks/speech.svg)\n"
    return f"""{TITLE}

`make bench-speech` on {machine["cores"]} cores ({machine["processor"]}), {machine["memory_gib"]} GiB, torch
{machine["torch"]}. Published sizes, random weights; "plain" is the same modules one utterance at a time in
float32, by torch's own operators, in the same process and in turn. A ratio is the median of the rounds' own;
"the limit" is what the flow's and the vocoder's products, convolutions and attention would take at the rates
of the fastest operators known for each, measured in the same process. With one thread seconds are the
process's processor seconds, with two a clock's, as those of first audio; "load" is the machine's load average
when the part began. All rounds: [speech.json](benchmarks/speech.json).

| what | figure | goal | peak memory | threads | load |
|---|---|---|---|---|---|
{chr(10).join(rows)}
{plot if {"hops", "windows"} <= found.keys() else ""}"""


def _row(found: Mapping[str, Any], part: str, what: str, figure: str, goal: str = "–") -> str:
    run = found[part]
    where = f"{run['peak_mib']:,} MiB | {run['threads']} | {run['load_average']:.1f}"
    return f"| {what} | {figure} | {goal} | {where} |"


def _flow(found: Mapping[str, Any]) -> list[str]:
    if "flow" not in found:
        return []
    run = found["flow"]
    goals = {"plain": "–", "float32": "1.03 x", "bfloat16": "1.35 x, rms 4 %"}
    rows = []
    for name, way in run["ways"].items():
        distance = (
            f"; mel off by {way['mel_max']:.1e}, rms {100 * way['mel_rms']:.2f} %" if name != "plain" else ""
        )
        figure = (
            f"{way['s']:.1f} s, {way['faster']:.2f} x plain, {100 * way['share_of_limit']:.0f} % of the limit"
            f" of {way['limit_s']:.1f} s{distance}"
        )
        rows.append(_row(found, "flow", f"flow + vocoder, 10 s, prompt 3 s, {name}", figure, goals[name]))
    figure = f"{run['vocoder_s']:.2f} s, {run['vocoder_faster']:.2f} x plain"
    rows.append(_row(found, "flow", "of it the vocoder, float32", figure))
    return rows


def _batch(found: Mapping[str, Any]) -> list[str]:
    if "batch" not in found:
        return []
    figure = f"{found['batch']['over_sum']:.3f} of the sum ({found['batch']['alone_s']:.1f} s)"
    return [_row(found, "batch", "four utterances of 1.5 to 3 s together", figure, "1.05")]


def _streaming(found: Mapping[str, Any]) -> list[str]:
    if "streaming" not in found:
        return []
    run = found["streaming"]
    return [
        _row(
            found,
            "streaming",
            "10 s in hops over offline",
            f"{run['over_offline']:.2f} ({run['hops_s']:.1f} s; by codes {run['codes_over_offline']:.2f});"
            f" steady state (context + hop + look-ahead) / hop = {run['steady']:.2f}",
            "1.6",
        ),
        _row(
            found,
            "streaming",
            f"first hop of {run['first_hop_audio_s']:.2f} s",
            f"{run['first_hop_s']:.2f} s",
        ),
    ]


def _vocoder(found: Mapping[str, Any]) -> list[str]:
    if "vocoder" not in found:
        return []
    run = found["vocoder"]
    figure = f"{run['over_whole']:.2f} of at once ({run['whole_s']:.2f} s), wave off by {run['wave_max']:.1e}"
    return [_row(found, "vocoder", "vocoder, 10 s in pieces of 1 s", figure)]


def _tokenizers(found: Mapping[str, Any]) -> list[str]:
    rows = []
    if "linguistic" in found:
        run = found["linguistic"]
        figure = f"{run['faster']:.1f} x ({run['whole_s']:.2f} s against {run['chunks_s']:.2f} s)"
        rows.append(
            _row(found, "linguistic", "linguistic ids of 10 s, at once over chunk by chunk", figure, "4 x")
        )
    if "streams" in found:
        run = found["streams"]
        figure = f"{run['over_one']:.2f} of one ({1000 * run['one_chunk_s']:.0f} ms for 240 ms)"
        rows.append(_row(found, "streams", "eight linguistic streams together", figure, "3"))
    if "tokens" in found:
        run = found["tokens"]
        figure = (
            f"{run['codes_s']:.2f} s, real-time factor {run['factor']:.3f};"
            f" semantic {run['semantic_s']:.2f} s"
        )
        rows.append(_row(found, "tokens", "both code books of 10 s", figure))
    return rows


def _first(found: Mapping[str, Any]) -> list[str]:
    if "first_audio" not in found:
        return []
    goals = {"1": "0.6 s", "3": "1.2 s, no underrun", "5": "–"}
    return [
        _row(
            found,
            "first_audio",
            f"first audio through the gateway, {found['first_audio']['models']}, {count} paced listeners",
            f"median {run['first_s']:.2f} s, worst {run['first_worst_s']:.2f} s; {run['with_underrun']} of"
            f" {run['listeners']} ran dry, {run['underrun_s']:.1f} s of {run['audio_s']:.0f} s",
            goals[count],
        )
        for count, run in found["first_audio"].items()
        if count in goals
    ]


def _soak(found: Mapping[str, Any]) -> list[str]:
    if "soak" not in found:
        return []
    run = found["soak"]
    outcomes = ", ".join(f"{count} x {name}" for name, count in sorted(run["outcomes"].items()))
    memory = ", ".join(f"{name} {ratio:.3f}" for name, ratio in run["memory"].items())
    figure = f"{outcomes}; held afterwards: {run['held'] or 'nothing'}; memory over before: {memory}"
    return [_row(found, "soak", f"200 mixed requests, {run['models']}", figure, "nothing, 1.02")]


def _modes(found: Mapping[str, Any]) -> list[str]:
    if "hops" not in found:
        return []
    border = f"{found['hops']['border']:.2f} of what it is elsewhere"
    return [
        _row(
            found, "hops", f"{found['hops']['models']}, the wave's second difference where hops meet", border
        ),
        *_by_prompt(found),
    ]


def _by_prompt(found: Mapping[str, Any]) -> list[str]:
    return [
        _row(
            found,
            "hops",
            f"{found['hops']['models']}, prompt mode `{mode}`: mel's distance to offline",
            f"{100 * run['distance']:.0f} % rms at {run['codes_over_offline']:.2f} times the codes",
        )
        for mode, run in found["hops"]["prompt"].items()
    ]


def _windows(found: Mapping[str, Any]) -> list[str]:
    if "windows" not in found:
        return []
    run = found["windows"]
    shares = ", ".join(f"{size} s: {100 * share:.0f} %" for size, share in run["agreement"].items())
    what = (
        f"semantic ids in windows that are the whole file's, {run['models']}, by window (hop half of it);"
        f" recordings of {min(run['seconds']):.1f} to {max(run['seconds']):.1f} s"
    )
    return [_row(found, "windows", what, shares)]


ROWS = {
    "flow": _flow,
    "batch": _batch,
    "streaming": _streaming,
    "vocoder": _vocoder,
    "tokenizers": _tokenizers,
    "first": _first,
    "soak": _soak,
    "modes": _modes,
    "windows": _windows,
}


def plots(found: Mapping[str, Any]) -> None:
    """docs/benchmarks/speech.svg."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    mpl.rcParams["svg.hashsalt"] = "speech"  # the same figures give the same file
    figure, (hops, windows) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    for name, label in (("context", "context (look-ahead 10)"), ("look_ahead", "look-ahead (context 50)")):
        points = {int(size): 100 * value for size, value in found["hops"][name].items()}
        hops.plot(list(points), list(points.values()), marker="o", label=label)
    hops.set(
        xlabel="codes (41.67 a second)", ylabel="rms of the mel's difference, %", title="Hops against offline"
    )
    hops.set_ylim(bottom=0)
    hops.legend()
    agreement = {float(size): 100 * value for size, value in found["windows"]["agreement"].items()}
    windows.plot(list(agreement), list(agreement.values()), marker="o")
    windows.set(
        xlabel="window, s (hop half of it)", ylabel="ids of the whole file, %", title="Windowed semantic ids"
    )
    windows.set_xscale("log", base=2)
    windows.set_ylim(0, 102)
    figure.savefig(FILE.with_suffix(".svg"), metadata={"Date": None})
    plt.close(figure)
