"""Wire the gateway; the only file that names concrete classes."""

from __future__ import annotations

import asyncio
import os
import shutil

from aiohttp import web

from core.logs import get_logger
from core.metrics import start_metrics
from core.settings import Settings
from core.state.opening import open_store
from gateway.backend import Backend
from gateway.guests.server import GuestApi
from gateway.protocol import HttpsSite, Runner
from gateway.tls import server_context
from gateway.web import application, split_address

log = get_logger(__name__)


async def main() -> None:
    settings = Settings.from_env()
    await start_metrics(settings.metrics_port("gateway"))
    store = open_store(settings, "gateway")
    backend = Backend(settings, store)
    await backend.start()
    runner = Runner(application(backend))
    await runner.setup()
    await _listen_unix(runner, settings)
    await _listen_https(runner, settings)
    guests = GuestApi(backend, settings.state_dir / "guests")
    guests.start()
    try:
        await asyncio.Event().wait()
    finally:
        await guests.stop()
        await runner.cleanup()
        await backend.stop()
        await store.close()


async def _listen_unix(runner: web.AppRunner, settings: Settings) -> None:
    path = settings.socket_path
    path.unlink(missing_ok=True)
    await web.UnixSite(runner, str(path)).start()
    os.chmod(path, 0o660)
    try:
        shutil.chown(path, group=settings.group)
    except (LookupError, PermissionError):
        log.debug("socket_group_kept", path=str(path))
    log.info("gateway_started", socket=str(path))


async def _listen_https(runner: web.AppRunner, settings: Settings) -> None:
    """A port that is taken is said, not fatal: the unix socket still serves."""
    if not settings.https_address:
        return
    host, port = split_address(settings.https_address)
    folder = settings.state_dir / "tls"
    try:
        context = server_context(folder / "server.crt", folder / "server.key")
        await HttpsSite(runner, host, port, ssl_context=context).start()
    except (OSError, RuntimeError) as exc:
        log.warning("https_not_listening", address=settings.https_address, error=str(exc))
