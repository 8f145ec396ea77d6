"""The gRPC face of custom volumes: convert, call, convert."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.operations.operation import Operation
from core.operations.servicer import answer
from core.records import Volume, VolumeSnapshot
from core.state import keys
from core.state.repository import Entry
from protos.podium.common.v1 import common_pb2
from protos.podium.runtime.v1 import volume_pb2 as pb
from protos.podium.runtime.v1 import volume_pb2_grpc as rpc
from services.runtime.domain.volumes import Users, VolumeRef
from services.runtime.usecases.host import Host
from services.runtime.usecases.volumes.claims import VolumeClaims
from services.runtime.usecases.volumes.copies import VolumeCopies, WantedCopy
from services.runtime.usecases.volumes.custom import Name, NewVolume, Volumes
from services.runtime.usecases.volumes.snapshots import VolumeSnapshots


class VolumeServicer(rpc.VolumeServiceServicer):
    def __init__(
        self,
        host: Host,
        claims: VolumeClaims,
        volumes: Volumes,
        snapshots: VolumeSnapshots,
        copies: VolumeCopies,
    ) -> None:
        self._store = host.store
        self._claims = claims
        self._volumes = volumes
        self._snapshots = snapshots
        self._copies = copies

    def _answer(self, operation: Operation) -> common_pb2.Operation:
        return answer(self._claims.runner, operation)

    async def CreateVolume(self, request: pb.CreateVolumeRequest, context: Any) -> pb.CreateVolumeResponse:
        if request.HasField("source"):
            return pb.CreateVolumeResponse(operation=self._answer(await self._copies.copy(_copy(request))))
        wanted = NewVolume(
            ref=ref_of(request.volume),
            content_type=request.content_type,
            description=request.description,
            config=dict(request.config),
        )
        return pb.CreateVolumeResponse(operation=self._answer(await self._volumes.create(wanted)))

    async def GetVolume(self, request: pb.GetVolumeRequest, context: Any) -> pb.GetVolumeResponse:
        ref = ref_of(request.volume)
        await self._claims.caught_up(self._volumes.find(ref))
        return pb.GetVolumeResponse(volume=self._shown(self._volumes.find(ref), self._volumes.all_users()))

    async def ListCustomVolumes(
        self, request: pb.ListCustomVolumesRequest, context: Any
    ) -> pb.ListCustomVolumesResponse:
        self._store.pool(request.pool)
        home = "" if request.all_projects else self._store.home_of(request.project, "storage.volumes")
        prefix = keys.volumes(request.pool, home)
        await self._claims.caught_up(*self._store.volumes.entries(prefix))
        entries, users = self._store.volumes.entries(prefix), self._volumes.all_users()
        return pb.ListCustomVolumesResponse(volumes=[self._shown(entry, users) for entry in entries])

    async def GetVolumeState(
        self, request: pb.GetVolumeStateRequest, context: Any
    ) -> pb.GetVolumeStateResponse:
        used, total = await self._volumes.usage(self._volumes.find(ref_of(request.volume)).record)
        return pb.GetVolumeStateResponse(used_bytes=used, total_bytes=total)

    async def UpdateVolume(self, request: pb.UpdateVolumeRequest, context: Any) -> pb.UpdateVolumeResponse:
        operation = await self._volumes.update(
            ref_of(request.volume),
            dict(request.config),
            request.description if request.HasField("description") else None,
            merge=request.merge,
            revision=request.expected_revision,
        )
        return pb.UpdateVolumeResponse(operation=self._answer(operation))

    async def RenameVolume(self, request: pb.RenameVolumeRequest, context: Any) -> pb.RenameVolumeResponse:
        await self._volumes.rename(ref_of(request.volume), request.new_name)
        return pb.RenameVolumeResponse()

    async def DeleteVolume(self, request: pb.DeleteVolumeRequest, context: Any) -> pb.DeleteVolumeResponse:
        return pb.DeleteVolumeResponse(
            operation=self._answer(await self._volumes.delete(ref_of(request.volume)))
        )

    async def MoveVolume(self, request: pb.MoveVolumeRequest, context: Any) -> pb.MoveVolumeResponse:
        operation = await self._copies.move(ref_of(request.volume), ref_of(request.target))
        return pb.MoveVolumeResponse(operation=self._answer(operation))

    async def RestoreVolume(self, request: pb.RestoreVolumeRequest, context: Any) -> pb.RestoreVolumeResponse:
        operation = await self._snapshots.restore(ref_of(request.volume))
        return pb.RestoreVolumeResponse(operation=self._answer(operation))

    async def CreateVolumeSnapshot(
        self, request: pb.CreateVolumeSnapshotRequest, context: Any
    ) -> pb.CreateVolumeSnapshotResponse:
        operation = await self._snapshots.take(
            ref_of(request.volume),
            expires_at=request.expires_at if request.HasField("expires_at") else None,
            description=request.description,
        )
        return pb.CreateVolumeSnapshotResponse(operation=self._answer(operation))

    async def UpdateVolumeSnapshot(
        self, request: pb.UpdateVolumeSnapshotRequest, context: Any
    ) -> pb.UpdateVolumeSnapshotResponse:
        await self._snapshots.update(
            ref_of(request.volume),
            request.description if request.HasField("description") else None,
            request.expires_at if request.HasField("expires_at") else None,
            revision=request.expected_revision,
        )
        return pb.UpdateVolumeSnapshotResponse()

    async def RenameVolumeSnapshot(
        self, request: pb.RenameVolumeSnapshotRequest, context: Any
    ) -> pb.RenameVolumeSnapshotResponse:
        operation = await self._snapshots.rename(ref_of(request.volume), request.new_name)
        return pb.RenameVolumeSnapshotResponse(operation=self._answer(operation))

    async def DeleteVolumeSnapshot(
        self, request: pb.DeleteVolumeSnapshotRequest, context: Any
    ) -> pb.DeleteVolumeSnapshotResponse:
        operation = await self._snapshots.delete(ref_of(request.volume))
        return pb.DeleteVolumeSnapshotResponse(operation=self._answer(operation))

    def _shown(self, entry: Entry[Volume], users: Mapping[Name, Users]) -> pb.CustomVolume:
        volume = entry.record
        name = volume.pool, volume.project, volume.name
        message = pb.CustomVolume(
            pool=volume.pool,
            project=volume.project,
            name=volume.name,
            description=volume.description,
            content_type=volume.content_type,
            config=volume.config,
            used_by=users.get(name, Users()).urls,
            revision=entry.revision,
            snapshots=[_snapshot(found) for found in self._store.snapshots_of_volume(volume)],
        )
        message.created_at.FromNanoseconds(int(volume.created_at * 1e9))
        return message


def ref_of(message: pb.VolumeRef) -> VolumeRef:
    return VolumeRef(message.pool, message.project, message.name, message.snapshot)


def _copy(request: pb.CreateVolumeRequest) -> WantedCopy:
    return WantedCopy(
        source=ref_of(request.source),
        target=ref_of(request.volume),
        description=request.description,
        config=dict(request.config) or None,
        only=request.volume_only,
        refresh=request.refresh,
    )


def _snapshot(entry: Entry[VolumeSnapshot]) -> pb.VolumeSnapshot:
    record = entry.record
    message = pb.VolumeSnapshot(
        name=record.name, description=record.description, config=record.config, revision=entry.revision
    )
    message.created_at.FromNanoseconds(int(record.created_at * 1e9))
    if record.expires_at:
        message.expires_at.FromNanoseconds(int(record.expires_at * 1e9))
    return message
