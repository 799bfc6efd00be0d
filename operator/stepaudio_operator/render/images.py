"""Names of images, and which ones new pools get."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ImageDefaults:
    """Which images new pools get where the spec does not say: the operator's settings."""

    version: str
    registry: str = ""


def image(registry: str | None, repository: str, version: str) -> str:
    """Full name of an image: `registry.example.com/team/stepaudio/gateway:1.4.2`."""
    prefix = f"{registry}/" if registry else ""
    return f"{prefix}{repository}:{version}"


def parts(reference: str, repository: str) -> ImageDefaults:
    """What `image` made `reference` of."""
    version = reference.rpartition(":")[2]
    return ImageDefaults(version, reference.removesuffix(f"{repository}:{version}").rstrip("/"))
