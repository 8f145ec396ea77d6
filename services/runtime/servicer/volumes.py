"""The gRPC face of custom volumes: convert, call, convert."""

from __future__ import annotations

from typing import Any

from core.operations.operation import Operation
from core.operations.servicer import answer
from core.records import Volume, VolumeSnapshot
from core.state import keys
from core.state.repository import Entry
from protos.podium.common.v1 import common_pb2
from protos.podium.runtime.v1 import volume_pb2 as pb
from protos.podium.runtime.v1 import volume_pb2_grpc as rpc
from services.runtime.domain.volumes import VolumeRef
from services.runtime.usecases.host import Host
from services.runtime.usecases.volumeclaims import VolumeClaims
from services.runtime.usecases.volumes import NewVolume, Volumes


class VolumeServicer(rpc.VolumeServiceServicer):
    def __init__(self, host: Host, claims: VolumeClaims, volumes: Volumes) -> None:
        self._store = host.store
        self._claims = claims
        self._volumes = volumes

    def _answer(self, operation: Operation) -> common_pb2.Operation:
        return answer(self._claims.runner, operation)

    async def CreateVolume(self, request: pb.CreateVolumeRequest, context: Any) -> pb.CreateVolumeResponse:
        wanted = NewVolume(
            ref=ref_of(request.volume),
            content_type=request.content_type,
            description=request.description,
            config=dict(request.config),
        )
        return pb.CreateVolumeResponse(operation=self._answer(await self._volumes.create(wanted)))

    async def GetVolume(self, request: pb.GetVolumeRequest, context: Any) -> pb.GetVolumeResponse:
        entry = self._volumes.find(ref_of(request.volume))
        return pb.GetVolumeResponse(volume=self._shown(entry))

    async def ListCustomVolumes(
        self, request: pb.ListCustomVolumesRequest, context: Any
    ) -> pb.ListCustomVolumesResponse:
        self._store.pool(request.pool)
        home = "" if request.all_projects else self._store.home_of(request.project, "storage.volumes")
        entries = self._store.volumes.entries(keys.volumes(request.pool, home))
        return pb.ListCustomVolumesResponse(volumes=[self._shown(entry) for entry in entries])

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

    def _shown(self, entry: Entry[Volume]) -> pb.CustomVolume:
        volume = entry.record
        message = pb.CustomVolume(
            pool=volume.pool,
            project=volume.project,
            name=volume.name,
            description=volume.description,
            content_type=volume.content_type,
            config=volume.config,
            used_by=self._volumes.users(volume).urls,
            revision=entry.revision,
            snapshots=[_snapshot(found) for found in self._store.snapshots_of(volume)],
        )
        message.created_at.FromNanoseconds(int(volume.created_at * 1e9))
        return message


def ref_of(message: pb.VolumeRef) -> VolumeRef:
    return VolumeRef(message.pool, message.project, message.name, message.snapshot)


def _snapshot(entry: Entry[VolumeSnapshot]) -> pb.VolumeSnapshot:
    record = entry.record
    message = pb.VolumeSnapshot(
        name=record.name, description=record.description, config=record.config, revision=entry.revision
    )
    message.created_at.FromNanoseconds(int(record.created_at * 1e9))
    if record.expires_at:
        message.expires_at.FromNanoseconds(int(record.expires_at * 1e9))
    return message
