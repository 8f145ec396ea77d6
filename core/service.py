"""The life of a service: lock, metrics, state, claim, operations, server; stopped in reverse order.

An `app.py` builds its rooms between these calls; what it started is stopped however the block ends:

    async with member_service("image") as service:
        store, runner = ImageStore(service.etcd), service.runner()
        await service.start(store)
        await service.start(runner)
        await service.serve(register, runner)
        await service.until_stopped()
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import grpc

from core.metrics import start_metrics
from core.operations.runner import Runner
from core.operations.servicer import NAME as OPERATIONS
from core.operations.servicer import OperationServicer
from core.process import take_lock
from core.projects import home_of
from core.records import Project
from core.rpc.server import serve
from core.settings import Settings
from core.state import keys
from core.state.cache import Cache
from core.state.claims import Fenced, Holder, lock_name
from core.state.etcd import EtcdStore
from core.state.opening import open_store
from core.state.store import Store
from protos.podium.common.v1 import common_pb2_grpc

Register = Callable[[grpc.aio.Server], list[str]]
_GRACE_S = 1.0
# How long a call waits for outcomes that are being recorded. Its caller may have read one from the state,
# where it then is already: only our own loop has to come round. More would hold up reads while etcd is away.
_KNOWN_S = 0.25


class Servicers:
    """What a server answers: servicers of one package, each beside the generated function that adds it."""

    def __init__(self, package: str) -> None:
        self._package = package
        self._added: list[tuple[Callable[[Any, grpc.aio.Server], None], Any]] = []

    def add(self, adder: Callable[[Any, grpc.aio.Server], None], servicer: Any) -> None:
        self._added.append((adder, servicer))

    def __call__(self, server: grpc.aio.Server) -> list[str]:
        """Add them to *server* and return their full names."""
        for adder, servicer in self._added:
            adder(servicer, server)
        names = (adder.__name__.removeprefix("add_") for adder, _ in self._added)
        return [f"{self._package}.{name.removesuffix('Servicer_to_server')}" for name in names]


class Part(Protocol):
    """Something that runs for as long as its service. stop() copes with a start() that failed."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...


@dataclass(frozen=True)
class MemberService:
    """One service of one member, from its lock to its server."""

    settings: Settings
    name: str
    etcd: EtcdStore
    claim: Holder
    projects: Cache[Project]
    _stack: contextlib.AsyncExitStack = field(repr=False)

    def runner(self, store: Store | None = None) -> Runner:
        """Return the runner of this service's operations; it writes through *store* where one is given."""
        fenced = Fenced(store or self.etcd, self.claim)
        return Runner(fenced, service=self.name, member=self.settings.member)

    async def start(self, part: Part) -> None:
        """Start *part*; it is stopped when the service ends, later parts first."""
        self._stack.push_async_callback(part.stop)
        await part.start()

    def at_end(self, close: Callable[[], Awaitable[None] | None]) -> None:
        """Call *close*, and await it if need be, when the service ends."""

        async def closing() -> None:
            if (pending := close()) is not None:
                await pending

        self._stack.push_async_callback(closing)

    async def serve(self, register: Register, runner: Runner) -> None:
        """Answer calls; *register* adds the servicers and returns their full names."""

        def whole(server: grpc.aio.Server) -> list[str]:
            common_pb2_grpc.add_OperationServiceServicer_to_server(OperationServicer(runner), server)
            return [*register(server), OPERATIONS]

        server = await serve(
            self.settings,
            self.name,
            whole,
            announce=self.claim.announce,
            home_of=lambda project, feature: home_of(self.projects, project, feature),
            settled=lambda: runner.caught_up(_KNOWN_S),
        )
        self._stack.push_async_callback(server.stop, _GRACE_S)

    async def until_stopped(self) -> None:
        """Return never: a signal cancels it, and the block ends."""
        await asyncio.Event().wait()


@contextlib.asynccontextmanager
async def member_service(name: str) -> AsyncIterator[MemberService]:
    """Be the only *name* service of this host and member, with metrics and a connection to the state.

    Raises: Busy when another process of this host is it. Waits for one of another host to be gone.
    """
    settings = Settings.from_env()
    async with contextlib.AsyncExitStack() as stack:
        lock = take_lock(settings, name)
        stack.callback(os.close, lock)
        await start_metrics(settings.metrics_port(name))
        etcd = open_store(settings, name)
        stack.push_async_callback(etcd.close)
        claim = Holder(
            etcd, service=name, member=settings.member, lock=lock_name(lock), on_lost=_end_this_process
        )
        projects = Cache(etcd, Project, keys.PROJECTS)
        service = MemberService(settings, name, etcd, claim, projects, stack)
        await service.start(claim)
        await service.start(projects)
        yield service


def _end_this_process() -> None:
    """Begin again with what the state says now: what we know of operations is another's business."""
    signal.raise_signal(signal.SIGTERM)
