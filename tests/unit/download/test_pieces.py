"""The pure parts of a download: which bytes are missing, what becomes of a failed try, what is told of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepaudio_runtime.download.pieces import Piece, decode, encode, split
from stepaudio_runtime.download.progress import Progress
from stepaudio_runtime.download.remote import Digest, Fault, FaultKind, RemoteFile
from stepaudio_runtime.download.retries import Patience, wait_s
from stepaudio_runtime.errors import DownloadError
from stepaudio_runtime.retry_after import retry_after_s


def remote(size: int, digest: Digest | None = None) -> RemoteFile:
    return RemoteFile("Step-Audio-Chat/model.safetensors", size, digest, "http://hub/x")


@given(st.integers(0, 300), st.integers(10, 90), st.data())
def test_pieces_cover_a_file_and_survive_their_record(
    size: int, piece_bytes: int, data: st.DataObject
) -> None:
    pieces = split(size, piece_bytes)
    edges = [0, *(piece.stop for piece in pieces)]
    assert [piece.start for piece in pieces] == edges[:-1]
    assert edges[-1] == size
    assert sum(p.missing for p in pieces) == size
    for piece in pieces:
        piece.at = data.draw(st.integers(piece.start, piece.stop))
    # Whatever size of pieces the next process prefers.
    assert decode(encode(remote(size), pieces), remote(size), piece_bytes + 1) == pieces


@given(st.text() | st.sampled_from(["{}", "[]", "null", '{"pieces": 3}']))
def test_a_record_that_is_none_counts_for_nothing(text: str) -> None:
    assert decode(text, remote(10), 4) == [Piece(0, 4, 0), Piece(4, 8, 4), Piece(8, 10, 8)]


@pytest.mark.parametrize(
    "pieces",
    [
        [Piece(0, 4, 5), Piece(4, 10, 4)],  # further than its end
        [Piece(0, 4, 0), Piece(5, 10, 5)],  # a gap
        [Piece(0, 4, 0)],  # too short
        [Piece(0, 10, 3), Piece(10, 10, 10)],  # an empty one
    ],
)
def test_a_record_that_contradicts_itself_counts_for_nothing(pieces: list[Piece]) -> None:
    assert decode(encode(remote(10), pieces), remote(10), 10) == [Piece(0, 10, 0)]


def test_the_record_of_another_content_counts_for_nothing() -> None:
    text = encode(remote(10, Digest("sha256", "aa")), [Piece(0, 10, 9)])
    assert decode(text, remote(10, Digest("sha256", "bb")), 10) == [Piece(0, 10, 0)]


PATIENCE = Patience(give_up_s=600, first_wait_s=0.5, longest_wait_s=60, longest_asked_s=3600)


@pytest.mark.parametrize(
    ("fault", "fruitless", "silent_s", "expected"),
    [
        (Fault(FaultKind.BROKEN, "cut"), 0, 0.0, 0.0),
        (Fault(FaultKind.BROKEN, "cut"), 0, 9999.0, 0.0),  # bytes came: no reason for doubt
        (Fault(FaultKind.BROKEN, "cut"), 1, 1.0, 0.5),
        (Fault(FaultKind.BROKEN, "cut"), 4, 9.0, 4.0),
        (Fault(FaultKind.BROKEN, "cut"), 50, 500.0, 60.0),
        (Fault(FaultKind.BROKEN, "cut"), 50, 601.0, "SourceUnavailable"),
        (Fault(FaultKind.BROKEN, "500", 90.0), 1, 0.0, 0.5),
        (Fault(FaultKind.BUSY, "429", 90.0), 1, 0.0, 90.0),
        (Fault(FaultKind.BUSY, "429"), 1, 0.0, 0.5),
        (Fault(FaultKind.BUSY, "429", 1e9), 1, 0.0, 3600.0),
        (Fault(FaultKind.BUSY, "429", 900.0), 9, 1499.0, 900.0),
        (Fault(FaultKind.BUSY, "429", 900.0), 9, 1501.0, "SourceRateLimited"),
        (Fault(FaultKind.UNAUTHORIZED, "401"), 0, 0.0, "SourceUnauthorized"),
        (Fault(FaultKind.MISSING, "404"), 0, 0.0, "SourceNotFound"),
    ],
)
def test_what_becomes_of_a_failed_try(
    fault: Fault, fruitless: int, silent_s: float, expected: float | str
) -> None:
    if isinstance(expected, str):
        with pytest.raises(DownloadError) as given_up:
            wait_s(fault, fruitless, silent_s, PATIENCE)
        assert given_up.value.reason == expected
        assert given_up.value.for_a_person == (fault.kind in (FaultKind.UNAUTHORIZED, FaultKind.MISSING))
    else:
        assert wait_s(fault, fruitless, silent_s, PATIENCE) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("30", 30.0), ("Thu, 01 Jan 1970 00:01:00 GMT", 50.0), ("", None), ("soon", None), ("-3", None)],
)
def test_retry_after_is_seconds_or_a_date(text: str, expected: float | None) -> None:
    assert retry_after_s(text, now=10.0) == expected


def test_progress_tells_bytes_speed_and_what_is_left() -> None:
    now = [0.0]
    progress = Progress(lambda: now[0])
    assert (progress.speed(), progress.eta_s()) == (0.0, None)
    progress.begin(265_000_000_000, 5_000_000_000)
    for _ in range(100):
        now[0] += 1
        progress.add(200_000_000)
    assert (progress.speed(), progress.eta_s()) == (200_000_000.0, 1200.0)
    assert progress.line() == "25.00 GB of 265.00 GB (9 %), 200.0 MB/s, 20 min 0 s left"
    progress.lose(5_000_000_000)
    assert (progress.present, progress.received) == (20_000_000_000, 20_000_000_000)
    now[0] += 10_000
    assert progress.line().startswith("20.00 GB of 265.00 GB (7 %), ")
