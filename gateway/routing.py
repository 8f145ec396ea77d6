"""Stubs that call the runtime of the member whose business it is: gateways answer for all instances.

A Podium that is alone has the plain stubs in their place, so that nothing here costs it anything.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from gateway.cluster import Cluster

Where = Callable[[Any], Awaitable[str]]


@dataclass(frozen=True)
class _Row:
    """find: what a request (or its first message) is about, as (project, name). shape: as gRPC's kinds.

    pool: it names a pool instead, as ("", name), whose maker is asked.
    """

    find: Callable[[Any], tuple[str, str]]
    shape: str = "one"
    pool: bool = False


def _plain(r: Any) -> tuple[str, str]:
    return r.project, r.name


def _in(field: str) -> Callable[[Any], tuple[str, str]]:
    return lambda r: _plain(getattr(r, field))


def _of_snapshot(r: Any) -> tuple[str, str]:
    return r.project, r.instance


def _of_transfer(r: Any) -> tuple[str, str]:
    """What arrives is made here."""
    return _plain(r.going.instance) if r.HasField("going") else ("", "")


def _of_volume(r: Any) -> tuple[str, str]:
    return "", r.volume.pool


_POOL = _Row(lambda r: ("", r.name), pool=True)
_VOLUME = _Row(_of_volume, pool=True)
_PLAIN, _SNAPSHOT, _REF = _Row(_plain), _Row(_of_snapshot), _Row(_in("instance"))
# By method; what is not named here is answered by the services of this member.
ROUTES: dict[str, _Row] = {
    **dict.fromkeys(("GetInstanceAbout", "SetInstanceMetadata", "WriteTemplate", "DeleteTemplate"), _PLAIN),
    **dict.fromkeys(("MoveInstance", "RebuildInstance", "GetPrevious", "RenameInstance"), _PLAIN),
    **dict.fromkeys(("UpdateInstance", "ChangeInstanceState", "DeleteInstance"), _PLAIN),
    **dict.fromkeys(("StartExec", "StartConsole", "ClearConsoleLog", "ListLogs", "DeleteLog"), _PLAIN),
    **dict.fromkeys(("GetConsoleLog", "ReadLog"), _Row(_plain, "answers")),
    "CopyInstance": _Row(_in("source")),
    **dict.fromkeys(("CreateSnapshot", "GetSnapshot", "UpdateSnapshot", "RenameSnapshot"), _SNAPSHOT),
    **dict.fromkeys(("DeleteSnapshot", "RestoreSnapshot"), _SNAPSHOT),
    **dict.fromkeys(("StatFile", "DeleteFile"), _Row(_in("file"))),
    "ReadFile": _Row(_in("file"), "answers"),
    "WriteFile": _Row(lambda r: _plain(r.header.file), "asks"),
    "OpenSftp": _Row(_in("target"), "both"),
    **dict.fromkeys(("CreateBackup", "GetBackup", "ListBackups", "RenameBackup", "DeleteBackup"), _REF),
    **dict.fromkeys(("ExportBackup", "PackRoot"), _Row(_in("instance"), "answers")),
    **dict.fromkeys(("UpdatePool", "DeletePool"), _POOL),
    **dict.fromkeys(("CreateVolume", "GetVolume", "GetVolumeState", "UpdateVolume", "RenameVolume"), _VOLUME),
    **dict.fromkeys(("DeleteVolume", "MoveVolume", "RestoreVolume", "CreateVolumeSnapshot"), _VOLUME),
    **dict.fromkeys(("UpdateVolumeSnapshot", "RenameVolumeSnapshot", "DeleteVolumeSnapshot"), _VOLUME),
    **dict.fromkeys(("CreateVolumeBackup", "GetVolumeBackup", "ListVolumeBackups"), _VOLUME),
    **dict.fromkeys(("RenameVolumeBackup", "DeleteVolumeBackup"), _VOLUME),
    "ExportVolumeBackup": _Row(_of_volume, "answers", pool=True),
    "RunTransfer": _Row(_of_transfer, "both"),
}


class Routed:
    """A stub of the runtime: *make* makes one on a line, *local* is that of this member."""

    def __init__(self, cluster: Cluster, make: Callable[[Any], Any], local: Any) -> None:
        self._cluster = cluster
        self._make = make
        self._local = local
        self._others: dict[str, tuple[Any, Any]] = {}

    def __getattr__(self, method: str) -> Any:
        row = ROUTES.get(method)
        if row is None:
            return getattr(self._local, method)

        async def where(request: Any) -> str:
            project, name = row.find(request)
            if row.pool:
                return await self._cluster.maker_of(name)
            return await self._cluster.member_of(project, name) if name else self._cluster.here

        return self._call(method, row.shape, where)

    def of(self, member: str) -> Any:
        """Return the stub of *member*. Raises: Unavailable when it does not live."""
        if member == self._cluster.here:
            return self._local
        line = self._cluster.line(member, "runtime")
        known, stub = self._others.get(member, (None, None))
        if known is not line:
            stub = self._make(line)
            self._others[member] = line, stub
        return stub

    def _call(self, method: str, shape: str, where: Where) -> Callable[..., Any]:
        async def one(request: Any, **how: Any) -> Any:
            return await getattr(self.of(await where(request)), method)(request, **how)

        async def answers(request: Any, **how: Any) -> AsyncGenerator[Any, None]:
            async for item in _passed(getattr(self.of(await where(request)), method)(request, **how)):
                yield item

        async def asks(requests: Any, **how: Any) -> Any:
            first, whole = await _peeked(requests)
            return await getattr(self.of(await where(first)), method)(whole, **how)

        async def both(requests: Any, **how: Any) -> AsyncGenerator[Any, None]:
            first, whole = await _peeked(requests)
            async for item in _passed(getattr(self.of(await where(first)), method)(whole, **how)):
                yield item

        shapes: dict[str, Callable[..., Any]] = {"one": one, "answers": answers, "asks": asks, "both": both}
        return shapes[shape]


class RoutedCommands(Routed):
    """Channels go where their operation runs."""

    def __init__(
        self,
        cluster: Cluster,
        make: Callable[[Any], Any],
        local: Any,
        runs_at: Callable[[str], Awaitable[str]],
    ) -> None:
        super().__init__(cluster, make, local)
        self._runs_at = runs_at

    def ConnectChannel(self, requests: Any, **how: Any) -> Any:
        async def where(first: Any) -> str:
            return await self._runs_at(first.open.operation_id)

        return self._call("ConnectChannel", "both", where)(requests, **how)


async def _peeked(requests: AsyncIterator[Any]) -> tuple[Any, AsyncGenerator[Any, None]]:
    """Return the first request, and all of them."""
    first = await anext(requests)

    async def whole() -> AsyncGenerator[Any, None]:
        try:
            yield first
            async for request in requests:
                yield request
        finally:
            if isinstance(requests, AsyncGenerator):
                await requests.aclose()

    return first, whole()


async def _passed(replies: AsyncGenerator[Any, None]) -> AsyncGenerator[Any, None]:
    """Pass *replies* on; whoever ends us ends the call."""
    try:
        async for reply in replies:
            yield reply
    finally:
        await replies.aclose()
