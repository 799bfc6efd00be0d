"""`stepaudio-cluster ...`: the cluster from the command line. Progress goes to stderr, answers to stdout."""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

from stepaudio_cluster import api
from stepaudio_cluster.api import Cluster, Provider
from stepaudio_cluster.errors import ClusterError, RequirementError
from stepaudio_cluster.own import OwnCluster
from stepaudio_cluster.progress import say, table
from stepaudio_cluster.settings import DEFAULT_NAME, Mode, Places, Record, Wish


def main() -> None:
    """Entry point: exit status 1 with one message when something is wrong or missing."""
    arguments = _parser().parse_args()
    run: Callable[[argparse.Namespace], int] = arguments.run
    try:
        sys.exit(run(arguments))
    except ClusterError as error:
        say(f"error: {error}")
        sys.exit(1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="stepaudio-cluster", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(run: Callable[[argparse.Namespace], int], name: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=(run.__doc__ or "").splitlines()[0])
        sub.add_argument("--name", default=DEFAULT_NAME, help=f"which cluster (default {DEFAULT_NAME})")
        sub.set_defaults(run=run)
        return sub

    up = command(_up, "up")
    up.add_argument("--mode", choices=[mode.value for mode in Mode], default=Mode.NODE.value)
    up.add_argument(
        "--fake-gpus",
        type=int,
        metavar="N",
        help="nvidia.com/gpu that the node claims (default: as before, or 0)",
    )
    up.add_argument("--kwok", type=int, default=0, metavar="N", help="simulated nodes")
    down = command(_down, "down")
    down.add_argument("--purge", action="store_true", help="also delete loaded images and logs")
    command(_status, "status")
    command(_kubeconfig, "kubeconfig")
    load = command(_load, "load")
    load.add_argument("archive", help="OCI or docker archive; - reads it from stdin")
    load.add_argument("image", nargs="?", help="the image's name, if not the archive's own")
    logs = command(_logs, "logs")
    logs.add_argument("component", nargs="?", help="a program's name; without it, the names")
    return parser


def _up(arguments: argparse.Namespace) -> int:
    """Start a cluster, or what is missing of it."""
    wish = Wish(arguments.name, Mode(arguments.mode), arguments.fake_gpus, arguments.kwok)
    cluster = Cluster.up(wish)
    if took := table():
        say(f"where the time went:\n{took}")
    say(f"cluster {cluster.name} ({cluster.provider.value}) is up; logs: {cluster.logs or 'of its provider'}")
    print(f"export KUBECONFIG={cluster.kubeconfig}")
    return 0


def _down(arguments: argparse.Namespace) -> int:
    """Stop a cluster and remove what it made."""
    provider = api.choose(Mode.NODE)
    own = OwnCluster.of(arguments.name)
    if provider is Provider.CURRENT:
        say("the kubeconfig's cluster is somebody else's: it stays")
        return 0
    if not own.places.state.exists() and Places.of_root(arguments.name).run.exists():
        raise RequirementError(f"the cluster {arguments.name} is root's: use sudo")
    if provider is Provider.KIND:
        Cluster(arguments.name, provider, own.places.kubeconfig).down()
    own.down(arguments.purge)
    return 0


def _status(arguments: argparse.Namespace) -> int:
    """Say which programs run; exit status 1 unless all of them do."""
    own = OwnCluster.of(arguments.name)
    record = Record.read(own.places)
    programs = own.programs()
    if record is None or not programs:
        print(f"cluster {arguments.name} is down")
        return 1
    print(f"cluster {arguments.name}, mode {record.mode.value}, {record.addresses.server}")
    for name, process in programs.items():
        state = f"pid {process.pid}" if process else f"ended; log: {own.supervisor.log(name)}"
        print(f"  {name:26} {state}")
    return 0 if all(programs.values()) else 1


def _kubeconfig(arguments: argparse.Namespace) -> int:
    """Print the path of the administrator's kubeconfig."""
    print(api.kubeconfig(arguments.name, api.choose(Mode.NODE)))
    return 0


def _load(arguments: argparse.Namespace) -> int:
    """Give pods an image from an archive, without a registry."""
    own = OwnCluster.of(arguments.name)
    cluster = Cluster(arguments.name, api.choose(Mode.NODE), own.places.kubeconfig)
    source = sys.stdin.buffer if arguments.archive == "-" else Path(arguments.archive)
    cluster.load(source, arguments.image)
    return 0


def _logs(arguments: argparse.Namespace) -> int:
    """Print the log of one of the cluster's programs."""
    own = OwnCluster.of(arguments.name)
    logs = {path.stem: path for path in sorted(own.places.logs.glob("*.log"))}
    if arguments.component not in logs:
        print("\n".join(logs))
        return 0 if arguments.component is None else 1
    with logs[arguments.component].open("rb") as log:
        os.sendfile(sys.stdout.fileno(), log.fileno(), 0, logs[arguments.component].stat().st_size)
    return 0
