"""Another version of the operator: its package, with every part of a pod changed that could differ."""

import shutil
from pathlib import Path

import stepaudio_operator

# File -> (what this version says, what the other one does).
DIFFERENCES: dict[str, tuple[tuple[str, str], ...]] = {
    "render/pod.py": (
        ("_PROBE_PERIOD_S = 5", "_PROBE_PERIOD_S = 7"),
        ("_LIVENESS_GRACE_S = 10", "_LIVENESS_GRACE_S = 12"),
        ("names.ENV_HOME: names.TMP_MOUNT,", 'names.ENV_HOME: names.TMP_MOUNT, "NEWER": "1",'),
        ('"enableServiceLinks": False,', '"enableServiceLinks": True,'),
    ),
    "render/pool.py": (
        ('"revisionHistoryLimit": 2', '"revisionHistoryLimit": 5'),
        ('"progressDeadlineSeconds": 600', '"progressDeadlineSeconds": 900'),
    ),
    "presets.py": (
        ('limits={"memory": "5Gi"}', 'limits={"memory": "7Gi"}'),
        ('drain_timeout="60s"', 'drain_timeout="90s"'),
        ("replicas=1,", "replicas=2,"),
    ),
    "spec/pod.py": (
        (
            "    shm_size: Quantity | None",
            "    host_network: bool = False\n    shm_size: Quantity | None",
        ),
    ),
}
PACKAGE = Path(stepaudio_operator.__file__).parent


def changed_files() -> dict[str, str]:
    """Path in the package -> the whole text, of every file in which the other version differs."""
    found = {}
    for name, changes in DIFFERENCES.items():
        text = (PACKAGE / name).read_text()
        for before, after in changes:
            assert before in text, f"{name} no longer says {before!r}"
            text = text.replace(before, after)
        found[name] = text
    return found


def another_version(folder: Path) -> Path:
    """The whole package, in the folder that has to be on the path."""
    copy = folder / stepaudio_operator.__name__
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("*.pyc"))
    for name, text in changed_files().items():
        (copy / name).write_text(text)
    return folder
