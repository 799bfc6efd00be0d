"""The server that speaks and listens."""

from tests.unit.spoken_server import running, server

__all__ = ["running", "server"]
