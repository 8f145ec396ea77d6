"""The gRPC face of snapshots: convert, call, convert."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from core.errors import NotFound
from core.operations.operation import Operation
from core.operations.servicer import answer
from core.records import Instance, InstanceObserved, Snapshot
from core.state import keys
from core.state.repository import Entry
from protos.podium.common.v1 import common_pb2
from protos.podium.runtime.v1 import snapshot_pb2 as pb
from protos.podium.runtime.v1 import snapshot_pb2_grpc as rpc
from services.runtime.domain.snapshots import of_now
from services.runtime.servicer import convert
from services.runtime.usecases.claims import Claims
from services.runtime.usecases.host import Host
from services.runtime.usecases.instances.restore import Restore
from services.runtime.usecases.instances.snapshots import Snapshots, WantedSnapshot

_UNKNOWN = -1


class SnapshotServicer(rpc.SnapshotServiceServicer):
    def __init__(self, host: Host, snapshots: Snapshots, restore: Restore, claims: Claims) -> None:
        self._host = host
        self._store = host.store
        self._snapshots = snapshots
        self._restore = restore
        self._claims = claims

    def _answer(self, operation: Operation) -> common_pb2.Operation:
        return answer(self._claims.runner, operation)

    async def CreateSnapshot(
        self, request: pb.CreateSnapshotRequest, context: Any
    ) -> pb.CreateSnapshotResponse:
        wanted = WantedSnapshot(request.name, _expiry(request), request.stateful)
        operation = await self._snapshots.take(request.project, request.instance, wanted)
        return pb.CreateSnapshotResponse(operation=self._answer(operation))

    async def GetSnapshot(self, request: pb.GetSnapshotRequest, context: Any) -> pb.GetSnapshotResponse:
        await self._claims.caught_up(request.project, request.instance)
        instance = self._store.instance(request.project, request.instance).record
        entry = self._store.snapshot(instance, request.name)
        sizes = await self._sizes(instance.pool, [entry])
        return pb.GetSnapshotResponse(snapshot=self._shown(instance, entry, sizes))

    async def ListSnapshots(self, request: pb.ListSnapshotsRequest, context: Any) -> pb.ListSnapshotsResponse:
        if request.instance:
            await self._claims.caught_up(request.project, request.instance)
            instance = self._store.instance(request.project, request.instance).record
            entries = [e for e in self._store.instance_snapshots(instance) if e.record.status != "Pending"]
            sizes = await self._sizes(instance.pool, entries)
            return pb.ListSnapshotsResponse(snapshots=[self._shown(instance, e, sizes) for e in entries])
        prefix = keys.instances("" if request.all_projects else request.project)
        return pb.ListSnapshotsResponse(snapshots=self._all(prefix))

    def _all(self, prefix: str) -> list[pb.Snapshot]:
        by_instance: dict[str, list[Entry[Snapshot]]] = {}
        for entry in self._store.snapshots.entries():
            if entry.record.status != "Pending":
                by_instance.setdefault(entry.record.instance_id, []).append(entry)
        if not by_instance:
            return []
        found = []
        for instance in self._store.instances.entries(prefix):
            entries = by_instance.get(instance.record.id, ())
            for entry in sorted(entries, key=lambda e: e.record.created_at):
                found.append(self._shown(instance.record, entry, {}))
        return found

    async def UpdateSnapshot(
        self, request: pb.UpdateSnapshotRequest, context: Any
    ) -> pb.UpdateSnapshotResponse:
        operation = await self._snapshots.update(
            request.project,
            request.instance,
            request.name,
            _expiry(request),
            expected_revision=request.expected_revision,
        )
        return pb.UpdateSnapshotResponse(operation=self._answer(operation))

    async def RenameSnapshot(
        self, request: pb.RenameSnapshotRequest, context: Any
    ) -> pb.RenameSnapshotResponse:
        operation = await self._snapshots.rename(
            request.project, request.instance, request.name, request.new_name
        )
        return pb.RenameSnapshotResponse(operation=self._answer(operation))

    async def DeleteSnapshot(
        self, request: pb.DeleteSnapshotRequest, context: Any
    ) -> pb.DeleteSnapshotResponse:
        operation = await self._snapshots.delete(request.project, request.instance, request.name)
        return pb.DeleteSnapshotResponse(operation=self._answer(operation))

    async def RestoreSnapshot(
        self, request: pb.RestoreSnapshotRequest, context: Any
    ) -> pb.RestoreSnapshotResponse:
        operation = await self._restore.accept(
            request.project, request.instance, request.name, stateful=request.stateful
        )
        return pb.RestoreSnapshotResponse(operation=self._answer(operation))

    # --- what is shown ---------------------------------------------------------------------------

    async def _sizes(self, pool: str, entries: list[Entry[Snapshot]]) -> Mapping[str, int]:
        with contextlib.suppress(NotFound):
            ids = [entry.record.id for entry in entries]
            return await self._host.driver_of(pool).usage(pool, ids) if ids else {}
        return {}

    def _shown(self, instance: Instance, entry: Entry[Snapshot], sizes: Mapping[str, int]) -> pb.Snapshot:
        record = entry.record
        observed = InstanceObserved(
            volatile=record.volatile, status="stopped", last_used_at=record.last_used_at
        )
        kept = of_now(record, instance)
        was = convert.instance(kept, observed, self._host.expanded(kept), entry.revision)
        message = pb.Snapshot(
            name=record.name,
            instance_name=instance.name,
            project=instance.project,
            instance=was,
            stateful=record.stateful,
            size_bytes=sizes.get(record.id, _UNKNOWN),
            revision=entry.revision,
        )
        message.created_at.FromNanoseconds(int(record.created_at * 1e9))
        if record.expires_at:
            message.expires_at.FromNanoseconds(int(record.expires_at * 1e9))
        return message


def _expiry(request: Any) -> float | None:
    """Return when it shall expire: None for nothing said, 0.0 for never."""
    if request.never_expires:
        return 0.0
    if request.HasField("expires_at"):
        return float(request.expires_at.ToNanoseconds() / 1e9)
    return None
