"""A voice store in a bucket, beside the deployment under load: a real S3 server on this machine, keys by
reference, one preparation for all speech pods.
"""

import contextlib
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from dataclasses import replace as altered
from http.server import ThreadingHTTPServer
from pathlib import Path

import localbucket

from stepaudio_cluster.make_up import cluster_url
from tests.bench.on_a_kubelet.controls import ask, speaks
from tests.bench.on_a_kubelet.ground import deployed, host_address, pods_of, uids, until_ready
from tests.bench.on_a_kubelet.neighbours import OFF
from tests.bench.on_a_kubelet.scenarios import Raw, World
from tests.e2e.load import QUESTION, SAID

BUCKET, SECRET, VOICE = "voices", "bench-bucket", "Bucket"
KEY_ID = "bench-key-id"
FEATURES = ".npz"


def voices(world: World) -> Raw:
    """A voice is created, spoken, spoken by another pod after the first one is deleted, deleted, and gone."""
    kubectl = world.nano.cluster.kubectl
    secret: Raw = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": SECRET}}
    keys = {"AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": "bench-secret"}
    world.apply({**secret, "stringData": keys})
    with _bucket(world) as bucket:
        place = {"bucket": BUCKET, "endpoint": bucket.url, "secretRef": {"name": SECRET}}
        spec = {"chat": OFF, "tokenizer": OFF, "voices": {"store": {"s3": place}}}
        with (
            deployed(world, "bucketeer", spec),
            cluster_url(world.nano.cluster, "bucketeer-gateway") as url,
        ):
            there = altered(world, url=url)
            form = {
                "name": VOICE,
                "transcript": SAID,
                "consent_person": "Ada",
                "consent_statement": "I agree.",
            }
            began = time.monotonic()
            wave = {"wave": ("a.wav", QUESTION.read_bytes())}
            ask(there, "POST", "voices", data=form, files=wave).raise_for_status()
            told = [speaks(there, VOICE)]
            (pod,) = pods_of(world, "bucketeer", "tts")
            kubectl("delete", "pod", pod["metadata"]["name"])
            world.until(lambda: pods_of(world, "bucketeer", "tts"), "another pod")
            until_ready(world, "bucketeer")
            others = uids(pods_of(world, "bucketeer", "tts"))
            told.append(speaks(there, VOICE))
            prepared = sum(method == "PUT" and path.endswith(FEATURES) for method, path in bucket.asked)
            ask(there, "DELETE", f"voices/{VOICE}").raise_for_status()
            told.append(speaks(there, VOICE))
            took = time.monotonic() - began
            left = bucket.files()
    kubectl("delete", "secret", SECRET)
    shown = "".join(str(pod["spec"]["containers"][0]["env"]))
    if told != [{"200": 4}, {"200": 4}, {"400": 4}] or left or pod["metadata"]["uid"] in others:
        raise AssertionError(f"answers {told}, left {left}")
    if bucket.strangers or "bench-secret" in shown or KEY_ID in shown:
        raise AssertionError(
            f"{bucket.strangers} requests without the keys, or they stand in the pod: {shown}"
        )
    return {
        "spoken": told[0],
        "by another pod": told[1],
        "prepared": prepared,
        "after it was deleted": told[2],
        "left of it": len(left),
        "requests with the Secret's key": len(bucket.asked),
        "took s": round(took),
    }


BUCKETS: Mapping[str, Callable[[World], Raw]] = {"voices-in-a-bucket": voices}


@dataclass
class Bucket:
    """The server's address, its folder, and what was asked of it."""

    folder: Path
    url: str = ""
    asked: list[tuple[str, str]] = field(default_factory=list)
    strangers: int = 0
    """Requests that were not signed with the Secret's key."""

    def files(self) -> list[str]:
        """What is in it."""
        return [path.name for path in (self.folder / BUCKET).rglob("*") if path.is_file()]


@contextlib.contextmanager
def _bucket(world: World) -> Iterator[Bucket]:
    """An S3 server that the cluster's pods reach, with an empty bucket."""
    with tempfile.TemporaryDirectory(prefix="stepaudio-bucket-") as folder:
        bucket = Bucket(Path(folder))
        (bucket.folder / BUCKET).mkdir()

        class Handler(localbucket.S3Handler):
            data_root = bucket.folder

            def log_message(self, *_: object) -> None:
                pass

            def _dispatch(self, action: Callable[[str, str], None]) -> None:
                bucket.asked.append((self.command, self.path.partition("?")[0]))
                bucket.strangers += f"Credential={KEY_ID}/" not in self.headers.get("Authorization", "")
                super()._dispatch(action)

        host = host_address(world)
        server = ThreadingHTTPServer((host, 0), Handler)
        bucket.url = f"http://{host}:{server.server_port}"
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield bucket
        finally:
            server.shutdown()
            server.server_close()
