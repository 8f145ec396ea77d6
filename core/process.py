"""How every process of Podium runs: logs, one event loop, signals, and only one of each per host."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
from collections.abc import Awaitable, Callable

from core import logs
from core.errors import Busy
from core.settings import Settings

log = logs.get_logger(__name__)


def run_service(main: Callable[[], Awaitable[None]], *, log_level: str = "info") -> None:
    """Run *main* until it returns or SIGTERM/SIGINT cancels it; it cleans up in `finally`."""
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")
    logs.setup(log_level)
    import uvloop

    with (
        contextlib.suppress(asyncio.CancelledError),
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        runner.run(_until_signalled(main))


async def _until_signalled(main: Callable[[], Awaitable[None]]) -> None:
    task = asyncio.ensure_future(main())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    await task


def take_lock(settings: Settings, service: str) -> int:
    """Be the only *service* on this host and return the lock's descriptor; keep it open.

    This is the claim on all operations of this service and member. The kernel drops it when the
    process dies, however it dies.

    Raises: Busy when another process has it.
    """
    fd = os.open(settings.run_dir / f"{service}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o660)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        os.close(fd)
        raise Busy("ALREADY_RUNNING", f"Another {service} service runs here", about=service) from exc
    return fd
