"""Programs that outlive the command that started them: started, found again and stopped by record.

A record holds the process id together with the time at which that process started, so that an id which
the kernel gave to somebody else in the meantime is never signalled.
"""

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from stepaudio_cluster.errors import StepError

# What the programs inherit: nothing of the caller's own settings, and the folders of system programs.
ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}
# In /proc/PID/stat, counted after the program's name in brackets.
THREADS_FIELD = 17
START_TIME_FIELD = 19
KEPT_LOG_BYTES = 8_000_000


@dataclass(frozen=True)
class Process:
    """A process that cannot be mistaken for a later one with the same id."""

    pid: int
    started: int  # clock ticks since boot

    @staticmethod
    def of(pid: int) -> "Process | None":
        """The living process `pid`; None where it ended, even if nobody has read its exit status yet."""
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return None
        # Killed, but while its other threads are still on their way out it holds its ports and files.
        ended = fields[0] in "ZX" and int(fields[THREADS_FIELD]) <= 1
        return None if ended else Process(pid, int(fields[START_TIME_FIELD]))

    def alive(self) -> bool:
        """Whether this very process still runs."""
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, os.WNOHANG)
        return Process.of(self.pid) == self

    def signal(self, number: int) -> None:
        """Sends a signal, to nobody else."""
        if self.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


def stop(processes: Iterable[Process], grace_s: float = 10) -> None:
    """Asks all to end, then ends those that have not after `grace_s`."""
    remaining = [process for process in processes if process.alive()]
    for process in remaining:
        process.signal(signal.SIGTERM)
    for number, patience in ((signal.SIGKILL, grace_s), (signal.SIGKILL, 5.0)):
        deadline = time.monotonic() + patience
        while remaining and time.monotonic() < deadline:
            time.sleep(0.05)
            remaining = [process for process in remaining if process.alive()]
        for process in remaining:
            process.signal(number)


def running(match: Callable[[list[str]], bool]) -> list[Process]:
    """Every living process whose arguments `match`."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            arguments = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
        except (FileNotFoundError, ProcessLookupError):
            continue
        process = Process.of(int(entry.name))
        if arguments and process and match(arguments):
            found.append(process)
    return found


@dataclass(frozen=True)
class Supervisor:
    """The programs of one cluster: records in `records`, output in `logs`."""

    records: Path
    logs: Path

    def log(self, name: str) -> Path:
        """Where the output of program `name` goes."""
        return self.logs / f"{name}.log"

    def find(self, name: str) -> Process | None:
        """The living program `name`."""
        read = self._read(name)
        return read[0] if read and read[0].alive() else None

    def ensure(self, name: str, command: Sequence[str], configuration: Sequence[Path] = ()) -> bool:
        """Runs `command` as `name`, unless it runs already with the same arguments and configuration.

        Returns whether it had to be started.
        """
        fingerprint = _fingerprint(command, configuration)
        read = self._read(name)
        if read and read[0].alive():
            if read[1] == fingerprint:
                return False
            stop([read[0]])
        self.records.mkdir(parents=True, exist_ok=True)
        self.logs.mkdir(parents=True, exist_ok=True)
        log = self.log(name)
        if log.exists() and log.stat().st_size > KEPT_LOG_BYTES:
            log.replace(log.with_suffix(".log.1"))
        with log.open("ab") as output:
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=ENVIRONMENT,
                start_new_session=True,
                cwd="/",
            )
        # One that ended at once is recorded too: `find` and `wait` tell.
        process = Process.of(child.pid) or Process(child.pid, started=0)
        # The child is ours to outlive: without this, Popen warns when it is collected.
        child.returncode = 0
        temporary = self.records / f"{name}.new"
        temporary.write_text(
            json.dumps({**asdict(process), "fingerprint": fingerprint, "command": list(command)})
        )
        temporary.replace(self.records / f"{name}.json")
        return True

    def wait(self, name: str, ready: Callable[[], bool], patience_s: float) -> None:
        """Waits until `ready`; fails at once when the program has ended."""
        deadline = time.monotonic() + patience_s
        while not ready():
            if self.find(name) is None:
                raise StepError(f"{name} ended", self.log(name))
            if time.monotonic() > deadline:
                raise StepError(f"{name} was not ready after {patience_s:.0f} s", self.log(name))
            time.sleep(0.1)

    def names(self) -> list[str]:
        """Programs that have a record, in the order in which they were started."""
        records = sorted(self.records.glob("*.json"), key=lambda record: record.stat().st_mtime_ns)
        return [record.stem for record in records]

    def stop(self, names: Iterable[str], grace_s: float = 10) -> None:
        """Ends programs, and forgets them."""
        names = list(names)
        stop([process for name in names if (process := self.find(name))], grace_s)
        for name in names:
            (self.records / f"{name}.json").unlink(missing_ok=True)

    def _read(self, name: str) -> tuple[Process, str] | None:
        try:
            raw = json.loads((self.records / f"{name}.json").read_text())
        except FileNotFoundError:
            return None
        return Process(raw["pid"], raw["started"]), raw["fingerprint"]


def _fingerprint(command: Sequence[str], configuration: Sequence[Path]) -> str:
    digest = hashlib.sha256("\0".join(command).encode())
    for path in configuration:
        digest.update(b"\0" + path.read_bytes())
    return digest.hexdigest()
