"""The operator's own HTTP server: `/healthz`, `/readyz`, `/metrics`. It runs in standbys too.

`/healthz` fails (503) only where a restart would help: the event loop answers by answering at all, and the
checks passed in say what else must make progress. `/readyz` fails until the replica can do its part: a
standby when the API server has answered it, the leader when its caches are filled.
"""

from collections.abc import Callable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from stepaudio_operator.metrics import Metrics

Check = Callable[[], str | None]
"""None where all is well, else what is wrong in words."""


class HealthServer:
    """Serves health and metrics on one port until closed."""

    def __init__(self, host: str, port: int, metrics: Metrics, alive: Check, ready: Check) -> None:
        self._host = host
        self._port = port
        self._metrics = metrics
        self._checks = {"/healthz": alive, "/readyz": ready}
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Binds the port. Raises `OSError` where it is taken."""
        app = web.Application()
        app.router.add_get("/healthz", self._check)
        app.router.add_get("/readyz", self._check)
        app.router.add_get("/metrics", self._scrape)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False)
        await self._runner.setup()
        await web.TCPSite(self._runner, self._host, self._port).start()

    @property
    def port(self) -> int:
        """The port that is bound."""
        if self._runner is None:
            return self._port
        return int(self._runner.addresses[0][1])

    async def close(self) -> None:
        """Closes the port."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _check(self, request: web.Request) -> web.Response:
        problem = self._checks[request.path]()
        if problem is None:
            return web.Response(text="ok\n")
        return web.Response(text=problem + "\n", status=503)

    async def _scrape(self, request: web.Request) -> web.Response:
        return web.Response(body=self._metrics.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})
