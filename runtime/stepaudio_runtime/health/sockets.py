"""How WebSockets are served: as uvicorn does, but that nothing heaps up for a client that does not read."""

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

MAX_MESSAGE_BYTES = 4 << 20
"""Of a message, before a route sees it; the routes' own bounds are tighter, and say so."""


class BoundedWebSocket(WebSocketsSansIOProtocol):
    """While answers wait to be taken nothing more is read: a flood of pings would be answered without end."""

    def handle_ping(self) -> None:
        """Answer, and stop there where the client takes no answers."""
        super().handle_ping()
        if not self.writable.is_set():
            self.transport.pause_reading()

    def resume_writing(self) -> None:
        """The client has taken what waited."""
        super().resume_writing()
        if not self.read_paused:
            self.transport.resume_reading()
