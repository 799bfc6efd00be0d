"""OCI image archives of one static program each, made without a builder: pause, CoreDNS, the tests' probe."""

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any, BinaryIO

IMAGE_ROOT = "stepaudio.io"  # names only: nothing is ever pulled from there
NOBODY = 65532
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def reference(name: str, version: str) -> str:
    """The image's name; `version` is the hash of what the program was built from."""
    return f"{IMAGE_ROOT}/{name}:{version}"


def write(program: Path, name: str, target: BinaryIO, user: int = NOBODY) -> None:
    """Writes an archive of the image `name`, whose only file is `/PROGRAM`, also its entry point."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        entry = tarfile.TarInfo(program.name)
        entry.mode, entry.size = 0o755, program.stat().st_size
        with program.open("rb") as file:
            tar.addfile(entry, file)
    blobs: list[bytes] = [layer.getvalue()]
    configuration = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Entrypoint": [f"/{program.name}"], "User": f"{user}:{user}", "Env": ["PATH=/"]},
        "rootfs": {"type": "layers", "diff_ids": [_digest(blobs[0])]},
    }
    blobs.append(_json(configuration))
    blobs.append(manifest_of(blobs[1], [(_digest(blobs[0]), len(blobs[0]))]))
    with tarfile.open(fileobj=target, mode="w") as tar:
        write_layout(tar, index_of(blobs[2], name), blobs)


def manifest_of(configuration: bytes, layers: list[tuple[str, int]]) -> bytes:
    """The manifest of an image; a layer is its digest and its size in bytes, uncompressed."""
    layer_type = "application/vnd.oci.image.layer.v1.tar"
    return _json(
        {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": _descriptor("application/vnd.oci.image.config.v1+json", configuration),
            "layers": [{"mediaType": layer_type, "digest": d, "size": size} for d, size in layers],
        }
    )


def index_of(manifest: bytes, name: str) -> dict[str, Any]:
    """The index of an archive that holds one image, named `name`."""
    entry = {
        **_descriptor(_MANIFEST, manifest),
        "annotations": {"org.opencontainers.image.ref.name": name},
        "platform": {"architecture": "amd64", "os": "linux"},
    }
    return {"schemaVersion": 2, "manifests": [entry]}


def write_layout(tar: tarfile.TarFile, index: dict[str, Any], blobs: list[bytes]) -> None:
    """Writes what makes `tar` an OCI archive: the layout, the index and `blobs` by their digests."""
    files = {"oci-layout": _json({"imageLayoutVersion": "1.0.0"}), "index.json": _json(index)}
    files |= {f"blobs/sha256/{hashlib.sha256(blob).hexdigest()}": blob for blob in blobs}
    for path, content in files.items():
        entry = tarfile.TarInfo(path)
        entry.mode, entry.size = 0o644, len(content)
        tar.addfile(entry, io.BytesIO(content))


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True).encode()


def _digest(blob: bytes) -> str:
    return f"sha256:{hashlib.sha256(blob).hexdigest()}"


def _descriptor(media_type: str, blob: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": _digest(blob), "size": len(blob)}
