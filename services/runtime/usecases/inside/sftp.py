"""SFTP sessions on instances, running or stopped; each ends when its instance starts, stops or goes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Protocol

from core.errors import LimitReached
from core.records import InstanceObserved
from core.state.repository import Entry
from services.runtime.domain.idmaps import IdMap
from services.runtime.domain.lifecycle import UP
from services.runtime.domain.target import Target
from services.runtime.store import RuntimeStore
from services.runtime.usecases.inside.files import Roots

_MOST, _MOST_IN_ALL = 32, 256


class Session(Protocol):
    """The process that serves one client."""

    async def read(self) -> bytes: ...

    async def write(self, data: bytes) -> None: ...

    def end_input(self) -> None: ...

    def kill(self) -> None: ...

    async def close(self) -> None: ...


Start = Callable[[int, IdMap], Awaitable[Session]]


class SftpSessions:
    def __init__(self, store: RuntimeStore, roots: Roots, start: Start) -> None:
        self._roots = roots
        self._start = start
        self._open: dict[str, dict[Session, bool]] = {}
        store.observed.on_change(self._changed)

    @asynccontextmanager
    async def open(self, target: Target) -> AsyncIterator[Session]:
        """Raises: WrongState, LimitReached."""
        if len(self._open.get(target.id, ())) >= _MOST:
            raise LimitReached("SESSIONS", f"An instance may have {_MOST} SFTP sessions", about=target.name)
        if sum(map(len, self._open.values())) >= _MOST_IN_ALL:
            raise LimitReached(
                "SESSIONS", f"This server keeps {_MOST_IN_ALL} SFTP sessions at most; try later"
            )
        async with self._roots.open(target) as root:
            session = await root.use(lambda fd: self._start(fd, target.idmap))
            own = self._open.setdefault(target.id, {})
            own[session] = target.status in UP
            try:
                yield session
            finally:
                own.pop(session, None)
                if not own:
                    self._open.pop(target.id, None)
                await session.close()

    def _changed(self, key: str, entry: Entry[InstanceObserved] | None) -> None:
        """End what looks at a root that is not the instance's any more."""
        for session, was_up in list(self._open.get(key.rsplit("/", 1)[-1], {}).items()):
            if entry is None or (entry.record.status in UP) != was_up or entry.record.status == "starting":
                session.kill()
