"""What is on its way to or from another server: one operation each, that ends with the call it began by.

The gateway speaks with the other server. Here the archive is made, or made an instance of.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

from core.compression import Compression
from core.errors import PodiumError, WrongState
from core.operations.operation import CHANNEL, TASK, Operation
from core.operations.runner import Runner
from core.records import Instance, Snapshot
from services.runtime.domain.criu import not_live
from services.runtime.domain.lifecycle import UP
from services.runtime.usecases.host import Host
from services.runtime.usecases.transfers.archive import Archives
from services.runtime.usecases.transfers.arrive import Arrivals, WantedArrival
from services.runtime.usecases.transfers.pack import streamed

_LOST = "The connection to the other server was lost"
_CHANNELS = ("control", "fs")
# Half of the time is the network's: a little work here saves more of it there.
COMPRESSION = Compression("zstd", 1)


@dataclass
class Voyage:
    """why_not: why it failed, as far as is known; "" once it has succeeded."""

    operation: Operation
    why_not: str = _LOST


@dataclass(frozen=True)
class Source:
    instance: Instance
    snapshot: Snapshot | None


class Voyages:
    def __init__(self, host: Host, archives: Archives, arrivals: Arrivals, runner: Runner) -> None:
        self._store = host.store
        self._checkpoints = host.checkpoints
        self._archives = archives
        self._arrivals = arrivals
        self._runner = runner

    async def source(self, project: str, name: str, snapshot: str, *, live: bool) -> Source:
        """Return what is to be sent. Raises: NotFound, WrongState."""
        instance = self._store.instance(project, name).record
        if snapshot:
            return Source(instance, self._store.snapshot(instance, snapshot).record)
        if live and self._store.observed_of(instance).record.status in UP:
            raise WrongState("NO_CRIU", not_live(await self._checkpoints.obstacle(), "source"), about=name)
        return Source(instance, None)

    def out(self, source: Source, *, passive: bool) -> AbstractAsyncContextManager[Voyage]:
        instance = source.instance
        there = {"instances": (instance.name,)}
        return self.opened("instance.send", "Migrating instance", instance.project, there, passive=passive)

    def into(self, project: str, name: str, *, passive: bool) -> AbstractAsyncContextManager[Voyage]:
        here = {"instances": (name,)}
        return self.opened("instance.receive", "Creating instance", project, here, passive=passive)

    @asynccontextmanager
    async def opened(
        self, kind: str, words: str, project: str, resources: Mapping[str, tuple[str, ...]], *, passive: bool
    ) -> AsyncIterator[Voyage]:
        """Open an operation for the block, and end it as the voyage did."""
        operation = await self._runner.open(
            kind,
            words,
            op_class=CHANNEL if passive else TASK,
            project=project,
            resources=dict(resources),
            metadata={channel: secrets.token_hex(32) for channel in _CHANNELS} if passive else {},
        )
        voyage = Voyage(operation)
        try:
            yield voyage
        except PodiumError as exc:
            voyage.why_not = exc.message
        finally:
            # The call that carries this may have been cancelled: its operation must end all the same.
            await asyncio.shield(self._end(voyage))

    async def _end(self, voyage: Voyage) -> None:
        if voyage.why_not:
            await self._runner.fail(voyage.operation.id, WrongState("NOT_TRANSFERRED", voyage.why_not))
        else:
            await self._runner.finish(voyage.operation.id)

    def archive(self, source: Source, *, instance_only: bool) -> AsyncGenerator[bytes, None]:
        """Yield the archive. Raises: NotFound, Internal."""

        async def write(target: int) -> None:
            if source.snapshot:
                await self._archives.write_snapshot(source.instance, source.snapshot, target, COMPRESSION)
            else:
                await self._archives.write(source.instance, target, COMPRESSION, instance_only=instance_only)

        return streamed(write)

    async def land(self, voyage: Voyage, wanted: WantedArrival) -> None:
        """Make an instance of what arrived. Raises: NotFound, Invalid, AlreadyExists."""
        await self.landed(voyage, self._arrivals.accept(wanted))

    async def landed(self, voyage: Voyage, accepting: Awaitable[Operation]) -> None:
        """Let the operation that *accepting* begins end the voyage. Raises: what *accepting* does."""
        if self._runner.find_live(voyage.operation.id) is None:
            return  # cancelled
        done = await self._runner.wait((await accepting).id)
        error = done.error()
        voyage.why_not = error.message if error else ""
