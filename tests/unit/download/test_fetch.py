"""A download from a hub is right, whole and economical: against a real server on loopback that cuts
connections, limits rates, refuses and lies.
"""

from __future__ import annotations

import hashlib
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from stepaudio_runtime.download.fetch import Fetcher, Tuning, World
from stepaudio_runtime.download.hubs import HuggingFace, ModelScope
from stepaudio_runtime.download.partial import WORK, Partial, is_done
from stepaudio_runtime.download.remote import Digest, RemoteFile
from stepaudio_runtime.download.retries import Patience
from stepaudio_runtime.errors import DownloadError
from tests.unit.download.conftest import content
from tests.unit.download.hub import Answer, Cut, Fault, Hub, folders, models

QUICK = Tuning(
    connections=4,
    piece_bytes=64_000,
    save_bytes=16_000,
    patience=Patience(give_up_s=0.5, first_wait_s=0.01, longest_wait_s=0.05),
)
FOLDERS: dict[str, str | None] = {
    "Step-Audio-Tokenizer": None,
    "Step-Audio-Chat": "v1",
    "Step-Audio-TTS-3B": None,
}


Fetchers = Callable[..., Fetcher]


@pytest.fixture
def fetcher() -> Iterator[Fetchers]:
    """Makes a download from a hub; the connections end with the test."""
    with ExitStack() as sources:

        def make(hub: Hub, folder: Path, tuning: Tuning = QUICK, token: str = "", **world: object) -> Fetcher:
            source = HuggingFace(hub.url, "stepfun-ai", FOLDERS, token)
            sources.callback(source.close)
            return Fetcher(source, folder, tuning, World(**world))  # type: ignore[arg-type]

        yield make


@pytest.mark.parametrize("kind", [HuggingFace, ModelScope])
def test_every_file_is_there_and_a_second_run_fetches_nothing(
    hub: Hub, tmp_path: Path, kind: type[HuggingFace] | type[ModelScope]
) -> None:
    hub.token = "secret"
    source = kind(hub.url, "stepfun-ai", FOLDERS, "secret")
    Fetcher(source, tmp_path, QUICK).run()
    assert content(tmp_path) == folders(hub.files)
    left = [path.name for path in (tmp_path / WORK).rglob("*") if path.is_file()]
    assert all(name.endswith(".done") for name in left)
    # The token goes to the hub and not to the store that it sends clients on to.
    assert {auth for host, _, auth in hub.seen if host == "127.0.0.2"} == {None}

    sent = hub.sent
    again = Fetcher(source, tmp_path, QUICK)
    again.run()
    assert (hub.sent, again.progress.received) == (sent, 0)
    assert again.progress.present == again.progress.total == sum(map(len, folders(hub.files).values()))
    source.close()


def test_a_thousand_cut_connections_cost_less_than_a_twentieth(tmp_path: Path, fetcher: Fetchers) -> None:
    hub = Hub(models(large=12_000_000))
    whole = sum(map(len, folders(hub.files).values()))
    dice, cuts = random.Random(7), threading.Semaphore(1000)

    def cut(path: str) -> Fault:
        if not cuts.acquire(blocking=False):
            return None
        return Cut(after=dice.randrange(0, 44_000), reset=dice.random() < 0.2)

    hub.faults = cut
    patience = Patience(first_wait_s=0.01, longest_wait_s=0.05)
    tuning = Tuning(connections=4, piece_bytes=4_000_000, save_bytes=500_000, patience=patience)
    download = fetcher(hub, tmp_path, tuning)
    download.run()
    hub.close()
    assert not cuts.acquire(blocking=False), "all the cuts were made"
    assert content(tmp_path) == folders(hub.files)
    print(
        f"1,000 cuts, {whole:,} bytes: {download.progress.received / whole:.4f} of them received,"
        f" {hub.sent / whole:.4f} sent"
    )
    assert download.progress.received <= 1.05 * whole
    assert hub.sent <= 1.05 * whole


def test_what_a_stopped_run_has_brought_is_not_brought_again(
    hub: Hub, tmp_path: Path, fetcher: Fetchers
) -> None:
    whole = sum(map(len, folders(hub.files).values()))
    first = fetcher(hub, tmp_path)
    hub.faults = lambda path: first.stop() if first.progress.present > whole // 2 else None
    first.run()
    assert content(tmp_path).keys() < folders(hub.files).keys()
    hub.faults = lambda path: None
    second = fetcher(hub, tmp_path)
    second.run()
    assert content(tmp_path) == folders(hub.files)
    assert first.progress.received + second.progress.received == whole


def test_a_rate_limit_is_waited_out_by_everyone(hub: Hub, tmp_path: Path, fetcher: Fetchers) -> None:
    times = iter([Answer(429, {"Retry-After": "1"})])
    hub.faults = lambda path: next(times, None)
    download = fetcher(hub, tmp_path)
    started = threading.Event()
    download.run()
    assert content(tmp_path) == folders(hub.files)
    assert not started.is_set()


@pytest.mark.parametrize(
    ("answer", "reason", "for_a_person"),
    [
        (Answer(401), "SourceUnauthorized", True),
        (Answer(403), "SourceUnauthorized", True),
        (Answer(404), "SourceNotFound", True),
        (Answer(429, {"Retry-After": "0"}), "SourceRateLimited", False),
        (Answer(503, {"Retry-After": "0"}), "SourceRateLimited", False),
        (Answer(500), "SourceUnavailable", False),
    ],
)
@pytest.mark.parametrize("place", ["list", "file"])
def test_each_refusal_has_its_own_words(
    hub: Hub, tmp_path: Path, answer: Answer, reason: str, for_a_person: bool, place: str, fetcher: Fetchers
) -> None:
    of_list = place == "list"
    hub.faults = lambda path: answer if path.startswith("/api") == of_list else None
    with pytest.raises(DownloadError) as refused:
        fetcher(hub, tmp_path).run()
    assert (refused.value.reason, refused.value.for_a_person) == (reason, for_a_person)
    assert str(answer.status) in str(refused.value)
    assert content(tmp_path).keys() <= folders(hub.files).keys()


def test_a_hub_that_is_not_there_is_given_up_after_the_patience(tmp_path: Path, fetcher: Fetchers) -> None:
    hub = Hub(models())
    hub.close()
    with pytest.raises(DownloadError) as refused:
        fetcher(hub, tmp_path).run()
    assert (refused.value.reason, refused.value.for_a_person) == ("SourceUnavailable", False)


def test_a_spoilt_file_is_fetched_anew_once_and_never_appears(
    hub: Hub, tmp_path: Path, fetcher: Fetchers
) -> None:
    hub.spoil = {"model-00001.safetensors"}
    with pytest.raises(DownloadError) as refused:
        fetcher(hub, tmp_path).run()
    assert refused.value.reason == "ChecksumMismatch"
    assert "model-00001.safetensors" in str(refused.value)
    assert "Step-Audio-Chat/model-00001.safetensors" not in content(tmp_path)
    hub.spoil = set()
    fetcher(hub, tmp_path).run()
    assert content(tmp_path) == folders(hub.files)


def test_a_small_file_is_checked_by_git_s_own_sum(hub: Hub, tmp_path: Path, fetcher: Fetchers) -> None:
    hub.spoil = {"config.json"}
    with pytest.raises(DownloadError, match=r"ChecksumMismatch: Step-Audio-Chat/config\.json"):
        fetcher(hub, tmp_path).run()


def test_an_empty_file_with_the_sum_of_another_is_refused_and_not_waited_for(
    hub: Hub, tmp_path: Path
) -> None:
    class Liar(HuggingFace):
        def files(self) -> list[RemoteFile]:
            return [*super().files(), RemoteFile("a/spoilt.txt", 0, Digest("sha256", "0" * 64), "nowhere")]

    source = Liar(hub.url, "stepfun-ai", FOLDERS, "")
    with pytest.raises(DownloadError, match=r"ChecksumMismatch: a/spoilt\.txt"):
        Fetcher(source, tmp_path, QUICK).run()
    source.close()
    assert content(tmp_path) == {"Step-Audio-Chat/empty.txt": b""}


def test_what_nobody_fetched_is_not_said_to_be_there(hub: Hub, tmp_path: Path, fetcher: Fetchers) -> None:
    with pytest.raises(AssertionError, match="by nobody"):
        fetcher(hub, tmp_path, replace(QUICK, connections=0)).run()


def test_a_file_killed_on_its_way_over_another_of_the_same_size_is_not_done(tmp_path: Path) -> None:
    def partial(body: bytes) -> Partial:
        digest = Digest("sha256", hashlib.sha256(body).hexdigest())
        found = Partial(tmp_path, RemoteFile("a/model", len(body), digest, "anywhere"), piece_bytes=64)
        found.write(found.pieces[0], body)
        found.save()
        return found

    partial(b"old").finish()
    new = partial(b"new")
    # A move that is never made stands for the kill before it.
    (tmp_path / WORK / "a/model.part").unlink()
    with pytest.raises(FileNotFoundError):
        new.finish()
    assert not is_done(tmp_path, new.file)


def test_a_volume_that_is_too_small_is_known_before_the_first_byte(
    hub: Hub, tmp_path: Path, fetcher: Fetchers
) -> None:
    with pytest.raises(DownloadError, match=r"^VolumeFull: .* MB are .* has 0\.00 MB left") as refused:
        fetcher(hub, tmp_path, free=lambda folder: 1000).run()
    assert refused.value.for_a_person
    assert hub.sent == 0


@pytest.mark.parametrize("path", ["../outside", "/etc/passwd", "a/../../b", "a\\b"])
def test_a_name_that_leads_out_of_the_folder_is_refused(
    hub: Hub, tmp_path: Path, path: str, fetcher: Fetchers
) -> None:
    hub.files["stepfun-ai/Step-Audio-Chat"][path] = b"x"
    with pytest.raises(DownloadError, match="impossible name"):
        fetcher(hub, tmp_path / "models").run()
    assert not list(tmp_path.glob("outside*"))


def test_a_file_that_changed_since_is_fetched_anew(hub: Hub, tmp_path: Path, fetcher: Fetchers) -> None:
    fetcher(hub, tmp_path).run()
    hub.files["stepfun-ai/Step-Audio-Chat"]["config.json"] = b'{"hidden_size": 99}\n\n\n\n'
    again = fetcher(hub, tmp_path)
    again.run()
    assert content(tmp_path) == folders(hub.files)
    assert again.progress.received == len(b'{"hidden_size": 99}\n\n\n\n')
