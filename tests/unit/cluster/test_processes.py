"""Proves that programs are found again, restarted only if they must be, and nobody else is signalled."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stepaudio_cluster.errors import StepError
from stepaudio_cluster.processes import Process, Supervisor, running, stop

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]
DEAF = [
    sys.executable,
    "-c",
    "from signal import *; import time; signal(SIGTERM, SIG_IGN); print('deaf', flush=True); time.sleep(60)",
]


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    one = Supervisor(tmp_path / "records", tmp_path / "logs")
    yield one
    one.stop(one.names(), grace_s=0)


def test_a_second_ensure_finds_the_first(supervisor: Supervisor) -> None:
    assert supervisor.ensure("sleep", SLEEP)
    first = supervisor.find("sleep")

    assert not supervisor.ensure("sleep", SLEEP)
    assert first is not None
    assert supervisor.find("sleep") == first


def test_other_arguments_or_configuration_restart(supervisor: Supervisor, tmp_path: Path) -> None:
    configuration = tmp_path / "settings"
    configuration.write_text("a")
    supervisor.ensure("sleep", SLEEP, [configuration])
    pids = [supervisor.find("sleep")]

    configuration.write_text("b")
    assert supervisor.ensure("sleep", SLEEP, [configuration])
    pids.append(supervisor.find("sleep"))
    assert supervisor.ensure("sleep", [*SLEEP, "more"], [configuration])
    pids.append(supervisor.find("sleep"))

    assert None not in pids
    assert len(set(pids)) == 3
    assert [process.alive() for process in pids if process] == [False, False, True]


def test_a_record_of_a_reused_id_finds_nobody(supervisor: Supervisor) -> None:
    supervisor.ensure("sleep", SLEEP)
    process = supervisor.find("sleep")
    assert process is not None
    earlier = Process(process.pid, process.started - 1)

    stop([earlier], grace_s=0)

    assert not earlier.alive()
    assert process.alive()


def test_stop_ends_one_that_does_not_listen(supervisor: Supervisor) -> None:
    supervisor.ensure("deaf", DEAF)
    supervisor.wait("deaf", lambda: "deaf" in supervisor.log("deaf").read_text(), 10)
    process = supervisor.find("deaf")
    assert process is not None

    supervisor.stop(["deaf"], grace_s=0.2)

    assert not process.alive()
    assert supervisor.names() == []


def test_waiting_for_one_that_ended_names_its_log_and_shows_it(supervisor: Supervisor) -> None:
    supervisor.ensure("brief", ["sh", "-c", "echo no luck; exit 3"])

    with pytest.raises(StepError) as failure:
        supervisor.wait("brief", lambda: False, 10)

    assert str(failure.value) == f"brief ended; whole log: {supervisor.log('brief')}\nno luck"


def test_programs_inherit_nothing_of_the_caller(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://192.0.2.1")
    supervisor.ensure("env", ["sh", "-c", "env; echo end; sleep 60"])
    supervisor.wait("env", lambda: "end" in supervisor.log("env").read_text(), 10)

    assert "HTTPS_PROXY" not in supervisor.log("env").read_text()


def test_running_finds_by_arguments(supervisor: Supervisor, tmp_path: Path) -> None:
    supervisor.ensure("sleep", [*SLEEP, str(tmp_path)])
    process = supervisor.find("sleep")
    deadline = time.monotonic() + 10
    while not (found := running(lambda arguments: str(tmp_path) in arguments)):
        assert time.monotonic() < deadline, "the program has not begun"
        time.sleep(0.01)
    assert found == [process]
