"""Clients that need packages of their own, in the environment of this folder's lock."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
LIMIT_S = 180


def run(client: str, url: str, recording: Path, *models: str) -> dict[str, Any]:
    """What the script `client` of this folder says of a gateway at `url`: a JSON object, its last line."""
    environment = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    command = [environment.get("UV", "uv"), "run", "--frozen", "--project", str(HERE), "python"]
    done = subprocess.run(
        [*command, str(HERE / client), url, str(recording), *models],
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT_S,
        env=environment,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))
