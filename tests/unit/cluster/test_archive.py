"""Proves that a hand-written image archive is what the OCI image specification says, digest by digest."""

import hashlib
import io
import json
import tarfile
from pathlib import Path

from stepaudio_cluster import archive


def test_every_descriptor_matches_its_blob(tmp_path: Path) -> None:
    program = tmp_path / "pause"
    program.write_bytes(b"\x7fELF and so on")
    target = io.BytesIO()

    archive.write(program, "example.org/pause:1", target, user=7)

    target.seek(0)
    with tarfile.open(fileobj=target) as tar:
        files = {member.name: read.read() for member in tar if (read := tar.extractfile(member))}
    index = json.loads(files["index.json"])
    manifest_at = index["manifests"][0]
    manifest = json.loads(blob(files, manifest_at))
    configuration = json.loads(blob(files, manifest["config"]))
    layer = blob(files, manifest["layers"][0])
    assert json.loads(files["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    assert manifest_at["annotations"] == {"org.opencontainers.image.ref.name": "example.org/pause:1"}
    assert configuration["config"] == {"Entrypoint": ["/pause"], "User": "7:7", "Env": ["PATH=/"]}
    assert configuration["rootfs"]["diff_ids"] == [manifest["layers"][0]["digest"]]
    with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        (member,) = tar.getmembers()
        content = tar.extractfile(member)
        assert content is not None
        assert (member.name, member.mode, content.read()) == ("pause", 0o755, program.read_bytes())


def blob(files: dict[str, bytes], descriptor: dict[str, str]) -> bytes:
    content = files[f"blobs/sha256/{descriptor['digest'].removeprefix('sha256:')}"]
    assert hashlib.sha256(content).hexdigest() == descriptor["digest"].removeprefix("sha256:")
    assert len(content) == descriptor["size"]
    return content
