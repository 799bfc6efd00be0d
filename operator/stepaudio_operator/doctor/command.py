"""The command `doctor`: reads, judges, prints."""

from __future__ import annotations

import asyncio
import sys

from kubernetes.aio.config import ConfigException

from stepaudio_operator.doctor.facts import Facts
from stepaudio_operator.doctor.findings import Level, findings
from stepaudio_operator.doctor.look import look
from stepaudio_operator.kube.client import connect, own_namespace

EXIT_PROBLEMS = 1
EXIT_UNREACHABLE = 3


def examine(namespace: str | None) -> int:
    """Prints one line a finding. Returns 1 where there is a problem, 3 where the cluster cannot be read."""
    try:
        facts = asyncio.run(_facts(namespace))
    except ConfigException as unusable:
        sys.stderr.write(f"there is no cluster to look at: {unusable}\n")
        return EXIT_UNREACHABLE
    if facts.version is None:
        sys.stderr.write(f"the cluster cannot be read: {facts.unreadable['version']}\n")
        return EXIT_UNREACHABLE
    found = findings(facts)
    sys.stdout.writelines(f"{finding}\n" for finding in found)
    return EXIT_PROBLEMS if any(finding.level is Level.PROBLEM for finding in found) else 0


async def _facts(namespace: str | None) -> Facts:
    client = await connect()
    try:
        return await look(client, namespace or own_namespace())
    finally:
        await client.close()
