"""Builds the images with docker or buildah from the same Containerfiles, only when their content changed.

A tag ends in a hash of everything that goes into the image, so "is it built?" and "is it loaded?" are
questions about a tag. Base and torch layers are shared; downloads come from uv's cache on the host.
"""

import argparse
import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, cast

from stepaudio_cluster.errors import ClusterError, RequirementError, StepError
from stepaudio_cluster.progress import say, step
from stepaudio_cluster.settings import Places

SOURCE_SUFFIXES = {
    ".py",
    ".toml",
    ".json",
    ".txt",
    ".html",
    ".js",
    ".css",
    ".typed",
    ".md",
    ".model",
    ".safetensors",
}
BIG_TEMPORARY_FILES = "/var/tmp"  # noqa: S108 - on disk, where /tmp may be memory
DEFAULT_REGISTRY = "docker.io/"
REPOSITORY = f"{DEFAULT_REGISTRY}stepaudio/"
PLAIN = "http://"  # before a registry that has no TLS
_ENDS_WITHIN_S = 5.0  # a builder that has closed its archive
DEBIAN_RELEASE = "bookworm"
DEBIAN_PACKAGES = "python3,python3-venv,ca-certificates,libnuma1"


@dataclass(frozen=True)
class Image:
    """One image: its Containerfile's name, the image it stands on (None: BASE) and what it copies."""

    name: str
    parent: str | None
    inputs: tuple[str, ...]


TORCH = Image("runtime-torch", None, ("images/requirements/torch.txt",))
RUNTIME_CPU = Image("runtime-cpu", "runtime-torch", ("images/requirements/runtime-cpu.txt", "runtime"))
RUNTIME_CUDA = Image("runtime-cuda", "runtime-torch", ("images/requirements/runtime-cuda.txt", "runtime"))
GATEWAY = Image("gateway", None, ("images/requirements/gateway.txt", "runtime"))
OPERATOR = Image("operator", None, ("images/requirements/operator.txt", "operator"))
IMAGES = {image.name: image for image in (TORCH, RUNTIME_CPU, RUNTIME_CUDA, GATEWAY, OPERATOR)}
RUNTIME_IMAGES = (
    GATEWAY,
    RUNTIME_CPU,
    RUNTIME_CUDA,
)  # one version for all: pods of a release talk to each other


@dataclass(frozen=True)
class Builder:
    """Builds images of the checkout `project`; logs go to `logs`."""

    project: Path
    logs: Path
    tool: str  # "docker" or "buildah"
    _digests: dict[str, str] = field(default_factory=dict, repr=False, compare=False)

    @staticmethod
    def detect(project: Path, logs: Path) -> "Builder":
        """docker where an engine answers, else buildah."""
        docker = shutil.which("docker")
        if docker and subprocess.run([docker, "info"], capture_output=True, check=False).returncode == 0:
            return Builder(project, logs, "docker")
        if shutil.which("buildah") is None:
            raise RequirementError(
                "neither a running docker nor buildah found; install one: apt-get install buildah"
            )
        return Builder(project, logs, "buildah")

    def version(self) -> str:
        """Version of the runtime: what gateway and runtime images of this checkout are tagged with."""
        digest = hashlib.sha256("".join(self._content(i) for i in RUNTIME_IMAGES).encode())
        return f"0.1.0-{digest.hexdigest()[:8]}"

    def reference(self, image: Image) -> str:
        """Full name and tag of `image` as it is for this checkout."""
        if image in RUNTIME_IMAGES:
            return f"{REPOSITORY}{image.name}:{self.version()}"
        return f"{REPOSITORY}{image.name}:0.1.0-{self._content(image)[:8]}"

    def exists(self, reference: str) -> bool:
        """Whether the builder's own store holds `reference`."""
        command = [self.tool, "inspect", *(["--type", "image"] if self.tool == "buildah" else []), reference]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def build(self, image: Image) -> str:
        """Builds `image` and what it stands on, where they are not there yet; returns its reference."""
        reference = self.reference(image)
        if self.exists(reference):
            return reference
        base = self.build(IMAGES[image.parent]) if image.parent else self._base()
        with step(f"image {image.name}"), tempfile.TemporaryDirectory() as context:
            self._copy_context(image, Path(context))
            if self._digest(image) != self._content(image):
                raise ClusterError(
                    f"sources of image {image.name} changed after this run began: run it again"
                )
            command = self._command(image, reference, base, Path(context))
            self._run(command, f"image-{image.name}")
        return reference

    def push(self, image: Image, registry: str) -> None:
        """Puts a built image into `registry` (`registry.example.com/team`; with `http://` before it, one
        without TLS), where the operator and its pods look for it.
        """
        reference = self.reference(image)
        place = registry.removeprefix(PLAIN)
        target = f"{place}/{reference.removeprefix(DEFAULT_REGISTRY)}"
        with step(f"push {image.name}"):
            if self.tool == "docker":
                self._run(["docker", "tag", reference, target], "push")
                self._run(["docker", "push", "--quiet", target], "push")
            else:
                tls = [f"--tls-verify={str(place == registry).lower()}"]
                self._run(["buildah", "push", "--quiet", *tls, reference, f"docker://{target}"], "push")

    @contextlib.contextmanager
    def archive(self, reference: str) -> Iterator[IO[bytes]]:
        """`reference` as a docker archive, while it is read."""
        push = ["buildah", "push", "--quiet", reference, f"docker-archive:/dev/stdout:{reference}"]
        command = ["docker", "save", reference] if self.tool == "docker" else push
        self.logs.mkdir(parents=True, exist_ok=True)
        log = self.logs / "save.log"
        with (
            log.open("wb") as words,
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=words, env=_environment()) as saving,
        ):
            try:
                yield cast("IO[bytes]", saving.stdout)
            except ClusterError as error:
                # Half an archive cannot be read: then why it ended says more than that it did.
                with contextlib.suppress(subprocess.TimeoutExpired):
                    saving.wait(_ENDS_WITHIN_S)
                if saving.returncode:
                    raise StepError(f"{command[0]} failed with {saving.returncode}", log) from error
                saving.kill()
                raise
        if saving.returncode:
            raise StepError(f"{command[0]} failed with {saving.returncode}", log)

    def forget_old(self) -> None:
        """Frees the builder's store of the images of earlier contents; what the present ones share stays."""
        if self.tool != "buildah":
            return  # docker's own pruning knows what else the user has there
        listed = subprocess.run(
            ["buildah", "images", "--format", "{{.Name}}:{{.Tag}}"],
            capture_output=True,
            text=True,
            check=False,
        ).stdout.split()
        present = {self.reference(image) for image in IMAGES.values()}
        prefixes = tuple(f"{REPOSITORY}{name}:" for name in IMAGES)
        for old in (reference for reference in listed if reference.startswith(prefixes)):
            if old not in present:
                subprocess.run(["buildah", "rmi", old], capture_output=True, check=False)

    def _command(self, image: Image, reference: str, base: str | None, context: Path) -> list[str]:
        options = ["--file", str(context / "Containerfile"), "--tag", reference]
        if base:
            options += ["--build-arg", f"BASE={base}"]
        if self.tool == "docker":
            return ["docker", "build", *options, str(context)]
        cache = Path(os.environ.get("UV_CACHE_DIR", Path.home() / ".cache/uv"))
        cache.mkdir(parents=True, exist_ok=True)
        options += ["--isolation", "chroot", "--layers", "--pull-never", "--volume", f"{cache}:/uv-cache:rw"]
        options += ["--build-arg", "UV_CACHE_DIR=/uv-cache"]
        if certificates := os.environ.get("SSL_CERT_FILE"):
            options += [
                "--volume",
                "/etc/ssl/certs:/etc/ssl/certs:ro",
                "--build-arg",
                f"SSL_CERT_FILE={certificates}",
            ]
        return ["buildah", "bud", *options, str(context)]

    def _base(self) -> str | None:
        """With docker the public default of the Containerfiles; else a Debian tree made by debootstrap."""
        if self.tool == "docker":
            return None
        packages = hashlib.sha256(DEBIAN_PACKAGES.encode()).hexdigest()[:8]
        reference = f"{REPOSITORY}base:{DEBIAN_RELEASE}-{packages}"
        if self.exists(reference):
            return reference
        with (
            step(f"base image (debootstrap {DEBIAN_RELEASE})"),
            tempfile.TemporaryDirectory(dir=BIG_TEMPORARY_FILES) as tree,
        ):
            options = ["--variant=minbase", "--force-check-gpg", f"--include={DEBIAN_PACKAGES}"]
            self._run(["debootstrap", *options, DEBIAN_RELEASE, tree], "debootstrap")
            for waste in ("var/cache/apt/archives", "var/lib/apt/lists", "usr/share/doc", "usr/share/man"):
                shutil.rmtree(Path(tree, waste), ignore_errors=True)
            container = subprocess.run(
                ["buildah", "from", "scratch"], check=True, capture_output=True, text=True
            )
            name = container.stdout.strip()
            self._run(["buildah", "add", "--quiet", name, tree, "/"], "base-add")
            self._run(["buildah", "commit", "--quiet", "--rm", name, reference], "base-commit")
        return reference

    def _copy_context(self, image: Image, context: Path) -> None:
        shutil.copy(self.project / "images" / f"{image.name}.Containerfile", context / "Containerfile")
        for entry in image.inputs:
            for file in self._files(entry):
                inside = file.relative_to(
                    self.project / "images" if entry.startswith("images/") else self.project
                )
                target = context / inside
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, target)
                os.utime(target, (0, 0))  # layer caches compare times; content is what counts here

    def _files(self, entry: str) -> list[Path]:
        path = self.project / entry
        if path.is_file():
            return [path]
        found = (f for f in path.rglob("*") if f.is_file() and f.suffix in SOURCE_SUFFIXES)
        return sorted(f for f in found if "__pycache__" not in f.parts)

    def _content(self, image: Image) -> str:
        """Digest of all that goes into `image`, taken once: a run goes on with the sources it began with."""
        if image.name not in self._digests:
            self._digests[image.name] = self._digest(image)
        return self._digests[image.name]

    def _digest(self, image: Image) -> str:
        digest = hashlib.sha256()
        if image.parent:
            digest.update(self._content(IMAGES[image.parent]).encode())
        digest.update(DEBIAN_PACKAGES.encode())
        digest.update((self.project / "images" / f"{image.name}.Containerfile").read_bytes())
        for entry in image.inputs:
            for file in self._files(entry):
                digest.update(
                    str(file.relative_to(self.project)).encode() + b"\0" + file.read_bytes() + b"\0"
                )
        return digest.hexdigest()

    def _run(self, command: list[str], log_name: str) -> None:
        self.logs.mkdir(parents=True, exist_ok=True)
        log = self.logs / f"{log_name}.log"
        with log.open("w") as sink:
            code = subprocess.run(
                command, stdout=sink, stderr=subprocess.STDOUT, check=False, env=_environment()
            ).returncode
        if code:
            raise StepError(f"{command[0]} failed with {code}", log)


def _environment() -> dict[str, str]:
    """TMPDIR: the default of buildah's big temporary files may be a small memory file system."""
    return {"TMPDIR": BIG_TEMPORARY_FILES, **os.environ}


def main() -> int:
    """`python -m stepaudio_cluster.images NAME...`: builds the images of this checkout."""
    parser = argparse.ArgumentParser(prog="images", description=main.__doc__)
    parser.add_argument("images", nargs="+", choices=list(IMAGES), metavar="NAME")
    try:
        builder = Builder.detect(Path(__file__).resolve().parents[2], Places.of("images").base / "image-logs")
        for name in parser.parse_args().images:
            print(builder.build(IMAGES[name]))
    except ClusterError as error:
        say(f"error: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
