"""The HTTP server below the application: what it refuses by itself is said in LXD's envelope too."""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from core.errors import internal
from core.logs import get_logger
from gateway.lxd import envelope

log = get_logger(__name__)
FIRST_REQUEST_S = 60.0
HANDSHAKE_S = 10.0
_LIMITS: dict[str, Any] = {
    # Longer lines than aiohttp takes by default, so that a name of 10,000 characters gets our own answer.
    "max_line_size": 1 << 16,
    "max_field_size": 1 << 16,
    # No client of LXD compresses what it sends, and a small body must not become a large one in memory.
    "auto_decompress": False,
}


class Runner(web.AppRunner):
    """An AppRunner whose connections speak through Connection."""

    def __init__(self, app: web.Application) -> None:
        super().__init__(app, access_log=None, handle_signals=False, shutdown_timeout=2, **_LIMITS)

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        # aiohttp has no hook for the class of its connections; this version (pinned) makes them here.
        return _Server(
            made.request_handler, request_factory=made.request_factory, loop=made._loop, **made._kwargs
        )


class HttpsSite(web.TCPSite):
    """A TCPSite that waits less for the handshake: who does not even begin it holds a descriptor."""

    async def start(self) -> None:
        await web.BaseSite.start(self)
        assert self._runner.server
        self._server = await asyncio.get_running_loop().create_server(
            self._runner.server,
            self._host,
            self._port,
            ssl=self._ssl_context,
            backlog=self._backlog,
            ssl_handshake_timeout=HANDSHAKE_S,
        )


class _Server(web.Server):
    def __call__(self) -> RequestHandler:
        return Connection(self, loop=self._loop, **self._kwargs)


class Connection(RequestHandler):
    __slots__ = ()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Anybody may connect; who then says nothing is not kept."""
        super().connection_made(transport)
        asyncio.get_running_loop().call_later(FIRST_REQUEST_S, self._drop_if_silent)

    def _drop_if_silent(self) -> None:
        if self._request_count == 0 and self.transport is not None:
            self.transport.abort()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what is no HTTP, and what failed outside of the application's own handling."""
        if request.writer.output_size > 0:
            raise ConnectionError("The answer has begun; it cannot become another one")
        if isinstance(exc, ConnectionError):
            raise exc  # nobody is left to be answered
        if status >= 500:
            log.error("request_crashed", error=repr(exc)[:500])
            reply: Any = envelope.failure(internal())
        else:
            reply = envelope.error(status, f"This request is not understood: {_first_line(message or '')}")
        reply.force_close()
        return reply  # type: ignore[no-any-return]


def _first_line(text: str) -> str:
    found = next((line.strip(" :") for line in text.splitlines() if line.strip()), "bad HTTP")
    return found[:200]
