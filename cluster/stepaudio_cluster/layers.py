"""An image on its way from a builder to a node: the layers that the node has already are left out.

buildah's docker archives name every layer by the digest of its content, so what a node lacks is known before
it is read. An image of 6 GB whose last layer changed comes down to that layer.
"""

import json
import re
import tarfile
from collections.abc import Set
from typing import IO

from stepaudio_cluster.archive import index_of, manifest_of, write_layout
from stepaudio_cluster.errors import ClusterError

_LAYER = re.compile(r"([0-9a-f]{64})\.tar")
_LARGEST_TEXT = 1 << 20  # bytes of a manifest or a configuration


def without(held: Set[str], source: IO[bytes], target: IO[bytes], name: str) -> int:
    """Copies a docker archive of one image, as buildah streams it, as an OCI archive named `name`.

    Layers whose digests ("sha256:...") are in `held` are named but not written. Returns the bytes of the
    layers that are. Raises ClusterError where `source` ends early or is something else.
    """
    sizes: dict[str, int] = {}
    texts: dict[str, bytes] = {}
    written = 0
    try:
        with (
            tarfile.open(fileobj=source, mode="r|") as read,
            tarfile.open(fileobj=target, mode="w|", bufsize=1 << 20) as write,
        ):
            for member in read:
                if not member.isfile():
                    continue  # links of the archive's older form
                if match := _LAYER.fullmatch(member.name):
                    sizes[member.name] = member.size
                    if f"sha256:{match[1]}" not in held:
                        written += member.size
                        entry = tarfile.TarInfo(f"blobs/sha256/{match[1]}")
                        entry.mode, entry.size = 0o644, member.size
                        write.addfile(entry, read.extractfile(member))
                elif member.size <= _LARGEST_TEXT and (text := read.extractfile(member)):
                    texts[member.name] = text.read()
            (image,) = json.loads(texts["manifest.json"])
            configuration = texts[image["Config"]]
            layers = [(f"sha256:{layer.removesuffix('.tar')}", sizes[layer]) for layer in image["Layers"]]
            manifest = manifest_of(configuration, layers)
            write_layout(write, index_of(manifest, name), [configuration, manifest])
    except (tarfile.TarError, KeyError, ValueError) as error:
        raise ClusterError(f"the archive of {name} is not whole or not buildah's: {error!r}") from error
    return written
