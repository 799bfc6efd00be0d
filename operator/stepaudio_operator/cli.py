"""The command `stepaudio-operator`.

`run`        the operator itself: what the chart's container runs
`plan FILE`  what would be created for the deployments and data jobs in FILE, as YAML, and the GPU memory that
             it needs; no cluster is asked. With `--against-cluster` what would happen, a line a step
`doctor`     what of the cluster stands in the way, each with its cure; reads only
`crd`        the CustomResourceDefinitions, generated from the specs
`fields`     which field of a deployment replaces which pods, as a table
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from stepaudio_operator import crd, names
from stepaudio_operator.errors import ClusterError, SpecError
from stepaudio_operator.foresight import effects, preview
from stepaudio_operator.gpus import vram
from stepaudio_operator.render.images import ImageDefaults
from stepaudio_operator.spec.reading import parse_deployment

EXIT_INVALID = 1
EXIT_UNREACHABLE = 3
_KINDS = (names.DEPLOYMENT_KIND, names.DATA_JOB_KIND)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command. Returns the exit status: 1 where a file does not hold what it should, 3 where
    the cluster cannot be read.
    """
    options = _parser().parse_args(arguments)
    if options.command == "run":
        # Only the operator itself needs kopf and the API client.
        from stepaudio_operator.main import main as run

        return run()
    if options.command == "crd":
        return _crd(options.dir)
    if options.command == "fields":
        sys.stdout.write(effects.table())
        return 0
    if options.command == "doctor":
        from stepaudio_operator.doctor.command import examine

        return examine(options.namespace)
    images = ImageDefaults(options.runtime_version, options.registry)
    try:
        ours = _ours(options.file)
        if options.against_cluster:
            return _against(ours, images, options.namespace)
        for document in ours:
            if (too_large := _plan(document, images, options.summary)) is not None:
                sys.stderr.write(f"{options.file}: {': '.join(too_large)}\n")
                return EXIT_INVALID
    except Unreadable as unreadable:
        sys.stderr.write(f"{options.file}: {unreadable}\n")
        return EXIT_INVALID
    except SpecError as invalid:
        for path, message in invalid.problems:
            sys.stderr.write(f"{options.file}: {path}: {message}\n")
        return EXIT_INVALID
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="stepaudio-operator", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("run", help="run the operator")
    plan = commands.add_parser("plan", help="print what would be created for a file; no cluster needed")
    plan.add_argument("file", type=Path, help="YAML with deployments or data jobs; others are passed over")
    plan.add_argument("--runtime-version", default=version("stepaudio-operator"), help="where none is named")
    plan.add_argument("--registry", default="", help="where none is named")
    plan.add_argument("--summary", action="store_true", help="one line an object instead of YAML")
    plan.add_argument("--against-cluster", action="store_true", help="what would happen to what runs")
    plan.add_argument("--namespace", help="over what the file and the context say")
    definitions = commands.add_parser("crd", help="print or write the CRDs")
    definitions.add_argument("--dir", type=Path, help="write one file each into this folder")
    doctor = commands.add_parser("doctor", help="look at the cluster: what stands in the way, and its cure")
    doctor.add_argument("-n", "--namespace", help="whose quotas are looked at; else the context's")
    commands.add_parser("fields", help="print which field of a deployment replaces which pods")
    return parser


def _crd(folder: Path | None) -> int:
    for name, text in crd.render().items():
        if folder is None:
            sys.stdout.write(f"---\n{text}")
        else:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
    return 0


class Unreadable(Exception):  # noqa: N818 - what is said about a file
    """A file does not hold what it should."""


def _ours(file: Path) -> list[dict[str, Any]]:
    """The deployments and data jobs in a file; others are passed over. Raises `Unreadable`, `SpecError`."""
    try:
        documents = [d for d in yaml.safe_load_all(file.read_text()) if d]
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as wrong:
        raise Unreadable(str(wrong)) from wrong
    ours = [d for d in documents if _is_ours(d)]
    if not ours:
        raise Unreadable(f"there is no {' or '.join(_KINDS)} of {names.API_VERSION} in it")
    for document in ours:
        for path in ("metadata", "metadata.labels", "metadata.annotations", "spec"):
            _check_map(document, path)
    return ours


def _check_map(document: dict[str, Any], path: str) -> None:
    """Raises `SpecError` where what stands at `path` is no map."""
    part: Any = document
    for step in path.split("."):
        part = part.get(step)
        if part is None:
            return
    if not isinstance(part, dict):
        raise SpecError([(path, "has to be a map of names to values")])


def _plan(document: dict[str, Any], images: ImageDefaults, summary: bool) -> tuple[str, str] | None:
    """Prints what would be created, after the sum of its GPU memory; why it would be refused, if it would."""
    if document["kind"] == names.DATA_JOB_KIND:
        sys.stdout.writelines(_lines(preview.data_job_objects(document, images), summary))
        return None
    planned = preview.objects(document, images)
    spec = parse_deployment(document)
    sums = [line for found in vram.estimates(spec) for line in vram.table(spec.preset, found)]
    sys.stdout.writelines(f"{line}\n" if summary else f"# {line}\n" for line in sums)
    too_large = vram.refused(spec)
    if too_large is None:
        sys.stdout.writelines(_lines(planned, summary))
    return too_large


def _against(documents: Sequence[dict[str, Any]], images: ImageDefaults, namespace: str | None) -> int:
    """Prints what applying the documents would lead to. Returns the exit status."""
    # Only this and the operator itself need the API client.
    from kubernetes.aio.config import ConfigException

    from stepaudio_operator.foresight.against import foresee, foresee_data_job
    from stepaudio_operator.kube.client import connect, own_namespace

    async def tell() -> None:
        client = await connect()
        try:
            for document in documents:
                metadata = {**(document.get("metadata") or {})}
                metadata["namespace"] = namespace or metadata.get("namespace") or own_namespace()
                told = foresee_data_job if document["kind"] == names.DATA_JOB_KIND else foresee
                acts = await told(client, {**document, "metadata": metadata}, images, _now)
                place = f"{metadata['namespace']}/{metadata['name']}"
                sys.stdout.write(f"# {document['kind']} {place}\n")
                sys.stdout.writelines(f"{act}\n" for act in acts or ("nothing to do",))
        finally:
            await client.close()

    try:
        asyncio.run(tell())
    except (ClusterError, ConfigException) as unreachable:
        sys.stderr.write(f"the cluster cannot be read: {unreachable}\n")
        return EXIT_UNREACHABLE
    return 0


def _now() -> datetime:
    return datetime.now(UTC)


def _is_ours(document: Any) -> bool:
    return (
        isinstance(document, dict)
        and document.get("kind") in _KINDS
        and document.get("apiVersion") == names.API_VERSION
    )


def _lines(planned: Sequence[preview.Planned], summary: bool) -> Iterator[str]:
    for entry in planned:
        kind, name = entry.body["kind"], entry.body["metadata"]["name"]
        if summary:
            yield f"{kind:24} {name:44} {entry.reason}\n"
        else:
            yield f"---\n# {kind} {name}: {entry.reason}\n"
            yield yaml.safe_dump(entry.body, sort_keys=False, width=110)


if __name__ == "__main__":
    sys.exit(main())
