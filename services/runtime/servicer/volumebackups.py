"""The gRPC face of backups of custom volumes: convert, call, convert."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from core.operations.operation import Operation
from core.operations.runner import Runner
from core.operations.servicer import answer
from protos.podium.common.v1 import common_pb2
from protos.podium.runtime.v1 import volumebackup_pb2 as pb
from protos.podium.runtime.v1 import volumebackup_pb2_grpc as rpc
from services.runtime.servicer.transfer import backup_message
from services.runtime.servicer.volumes import ref_of
from services.runtime.usecases.transfers.backups import WantedBackup
from services.runtime.usecases.volumes.backups import VolumeBackups
from services.runtime.usecases.volumes.imports import VolumeImports, WantedVolume


class VolumeBackupServicer(rpc.VolumeBackupServiceServicer):
    def __init__(self, backups: VolumeBackups, imports: VolumeImports, runner: Runner) -> None:
        self._backups = backups
        self._imports = imports
        self._runner = runner

    def _answer(self, operation: Operation) -> common_pb2.Operation:
        return answer(self._runner, operation)

    async def CreateVolumeBackup(
        self, request: pb.CreateVolumeBackupRequest, context: Any
    ) -> pb.CreateVolumeBackupResponse:
        wanted = WantedBackup(
            name=request.name,
            expires_at=request.expires_at.ToNanoseconds() / 1e9,
            instance_only=request.volume_only,
            compression=request.compression,
        )
        operation = await self._backups.create(ref_of(request.volume), wanted)
        return pb.CreateVolumeBackupResponse(operation=self._answer(operation))

    async def GetVolumeBackup(
        self, request: pb.GetVolumeBackupRequest, context: Any
    ) -> pb.GetVolumeBackupResponse:
        found = self._backups.find(ref_of(request.volume), request.name)
        return pb.GetVolumeBackupResponse(backup=backup_message(found.record))

    async def ListVolumeBackups(
        self, request: pb.ListVolumeBackupsRequest, context: Any
    ) -> pb.ListVolumeBackupsResponse:
        found = self._backups.all(ref_of(request.volume))
        return pb.ListVolumeBackupsResponse(backups=[backup_message(backup) for backup in found])

    async def RenameVolumeBackup(
        self, request: pb.RenameVolumeBackupRequest, context: Any
    ) -> pb.RenameVolumeBackupResponse:
        operation = await self._backups.rename(ref_of(request.volume), request.name, request.new_name)
        return pb.RenameVolumeBackupResponse(operation=self._answer(operation))

    async def DeleteVolumeBackup(
        self, request: pb.DeleteVolumeBackupRequest, context: Any
    ) -> pb.DeleteVolumeBackupResponse:
        operation = await self._backups.delete(ref_of(request.volume), request.name)
        return pb.DeleteVolumeBackupResponse(operation=self._answer(operation))

    async def ExportVolumeBackup(
        self, request: pb.ExportVolumeBackupRequest, context: Any
    ) -> AsyncIterator[pb.ExportVolumeBackupResponse]:
        found = self._backups.find(ref_of(request.volume), request.name)
        await self._backups.tell_retrieved(ref_of(request.volume), found.record)
        async with aclosing(self._backups.read(found.record)) as chunks:
            async for chunk in chunks:
                yield pb.ExportVolumeBackupResponse(chunk=chunk)

    async def ImportVolume(self, request: pb.ImportVolumeRequest, context: Any) -> pb.ImportVolumeResponse:
        operation = await self._imports.accept(WantedVolume(ref_of(request.volume), request.ticket))
        return pb.ImportVolumeResponse(operation=self._answer(operation))
