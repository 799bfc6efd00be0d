"""Proves that of an image only the layers that a node lacks travel, and that all are named."""

import hashlib
import io
import json
import tarfile

import pytest

from stepaudio_cluster import layers
from stepaudio_cluster.errors import ClusterError

NAME = "docker.io/stepaudio/runtime-cpu:0.1.0-abc"
LAYERS = [b"a base", b"much torch" * 1000, b"our code"]
CONFIGURATION = b'{"os": "linux"}'


def hexadecimal(blob: bytes) -> str:
    return hashlib.sha256(blob).hexdigest()


def saved() -> bytes:
    """What buildah streams: layers by their digests, links of the older form, configuration, manifest."""
    stream = io.BytesIO()
    manifest = [
        {
            "Config": f"{hexadecimal(CONFIGURATION)}.json",
            "RepoTags": [NAME],
            "Layers": [f"{hexadecimal(layer)}.tar" for layer in LAYERS],
        }
    ]
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for layer in LAYERS:
            put(tar, f"{hexadecimal(layer)}.tar", layer)
        link = tarfile.TarInfo("older/layer.tar")
        link.type, link.linkname = tarfile.SYMTYPE, f"../{hexadecimal(LAYERS[0])}.tar"
        tar.addfile(link)
        put(tar, f"{hexadecimal(CONFIGURATION)}.json", CONFIGURATION)
        put(tar, "manifest.json", json.dumps(manifest).encode())
    return stream.getvalue()


def put(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))


@pytest.mark.parametrize("held", [LAYERS[:0], LAYERS[:2], LAYERS])
def test_only_the_layers_that_are_lacking_travel(held: list[bytes]) -> None:
    target = io.BytesIO()
    digests = {f"sha256:{hexadecimal(layer)}" for layer in held}

    written = layers.without(digests, io.BytesIO(saved()), target, NAME)

    target.seek(0)
    with tarfile.open(fileobj=target) as tar:
        files = {member.name: read.read() for member in tar if (read := tar.extractfile(member))}
    blobs = {name.rpartition("/")[2]: content for name, content in files.items() if "sha256" in name}
    assert {name: hexadecimal(content) for name, content in blobs.items()} == {name: name for name in blobs}
    (entry,) = json.loads(files["index.json"])["manifests"]
    manifest = json.loads(blobs[entry["digest"].removeprefix("sha256:")])
    lacking = [layer for layer in LAYERS if layer not in held]
    assert written == sum(map(len, lacking))
    assert entry["annotations"] == {"org.opencontainers.image.ref.name": NAME}
    assert [(layer["digest"], layer["size"]) for layer in manifest["layers"]] == [
        (f"sha256:{hexadecimal(layer)}", len(layer)) for layer in LAYERS
    ]
    assert manifest["config"]["digest"] == f"sha256:{hexadecimal(CONFIGURATION)}"
    leads_to = {entry["digest"].removeprefix("sha256:"), hexadecimal(CONFIGURATION)}
    assert set(blobs) == leads_to | {hexadecimal(layer) for layer in lacking}


@pytest.mark.parametrize("cut", [0, 700, 11_000, -2_000])
def test_an_archive_that_ends_early_is_said_to(cut: int) -> None:
    archive = saved().rstrip(b"\0")
    with pytest.raises(ClusterError, match=NAME):
        layers.without(set(), io.BytesIO(archive[: cut or 1]), io.BytesIO(), NAME)


def test_an_archive_of_another_make_is_said_to() -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        put(tar, "hello", b"world")
    with pytest.raises(ClusterError, match=NAME):
        layers.without(set(), io.BytesIO(stream.getvalue()), io.BytesIO(), NAME)
