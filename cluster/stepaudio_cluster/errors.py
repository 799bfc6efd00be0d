"""What can go wrong with a cluster.

ClusterError
├── RequirementError  something that this machine lacks; the message says how to get it
└── StepError         a program failed or did not become ready; the message names its log and shows its end
"""

from pathlib import Path


class ClusterError(Exception):
    """Anything that a user of the cluster should read as one message without a traceback."""


class RequirementError(ClusterError):
    """The machine lacks something: root, disk, a package, Go."""


class StepError(ClusterError):
    """A program ended or did not become ready in time."""

    def __init__(self, what: str, log: Path) -> None:
        lines = log.read_text(errors="replace").splitlines()[-15:] if log.exists() else []
        super().__init__("\n".join([f"{what}; whole log: {log}", *lines]))
