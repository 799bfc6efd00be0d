"""The command `stepaudio-operator`.

`run`        the operator itself: what the chart's container runs
`plan FILE`  what would be created for the deployments in FILE, and the GPU memory that it needs
`crd`        the CustomResourceDefinitions, generated from the specs
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from stepaudio_operator import crd, names, preview, vram
from stepaudio_operator.errors import SpecError
from stepaudio_operator.render.images import ImageDefaults
from stepaudio_operator.spec import parse_deployment

EXIT_INVALID = 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command. Returns the exit status; 1 where a file does not hold what it should."""
    options = _parser().parse_args(arguments)
    if options.command == "run":
        # Only the operator itself needs kopf and the API client.
        from stepaudio_operator.main import main as run

        return run()
    if options.command == "crd":
        return _crd(options.dir)
    return _plan(options.file, ImageDefaults(options.runtime_version, options.registry), options.summary)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="stepaudio-operator", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("run", help="run the operator")
    plan = commands.add_parser("plan", help="print what would be created for a file; no cluster needed")
    plan.add_argument("file", type=Path, help="YAML with StepAudioDeployments; others are passed over")
    plan.add_argument("--runtime-version", default=version("stepaudio-operator"), help="where none is named")
    plan.add_argument("--registry", default="", help="where none is named")
    plan.add_argument("--summary", action="store_true", help="one line an object instead of YAML")
    definitions = commands.add_parser("crd", help="print or write the CRDs")
    definitions.add_argument("--dir", type=Path, help="write one file each into this folder")
    return parser


def _crd(folder: Path | None) -> int:
    for name, text in crd.render().items():
        if folder is None:
            sys.stdout.write(f"---\n{text}")
        else:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
    return 0


def _plan(file: Path, images: ImageDefaults, summary: bool) -> int:
    try:
        documents = [d for d in yaml.safe_load_all(file.read_text()) if d]
    except (OSError, yaml.YAMLError) as unreadable:
        sys.stderr.write(f"{file}: {unreadable}\n")
        return EXIT_INVALID
    ours = [d for d in documents if _is_deployment(d)]
    if not ours:
        sys.stderr.write(f"{file}: there is no {names.DEPLOYMENT_KIND} of {names.API_VERSION} in it\n")
        return EXIT_INVALID
    for document in ours:
        try:
            planned = preview.objects(document, images)
        except SpecError as invalid:
            for path, message in invalid.problems:
                sys.stderr.write(f"{file}: {path}: {message}\n")
            return EXIT_INVALID
        spec = parse_deployment(document)
        sums = [line for found in vram.estimates(spec) for line in vram.table(spec.preset, found)]
        sys.stdout.writelines(f"{line}\n" if summary else f"# {line}\n" for line in sums)
        if (refused := vram.refused(spec)) is not None:
            sys.stderr.write(f"{file}: {': '.join(refused)}\n")
            return EXIT_INVALID
        sys.stdout.writelines(_lines(planned, summary))
    return 0


def _is_deployment(document: Any) -> bool:
    return (
        isinstance(document, dict)
        and document.get("kind") == names.DEPLOYMENT_KIND
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
