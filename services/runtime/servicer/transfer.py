"""The gRPC face of transfers: convert, call, convert."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from core.compression import parse_compression
from core.errors import Invalid
from core.operations.operation import Operation
from core.operations.runner import Runner
from core.operations.servicer import answer
from core.records import Backup
from protos.podium.common.v1 import common_pb2
from protos.podium.runtime.v1 import transfer_pb2 as pb
from protos.podium.runtime.v1 import transfer_pb2_grpc as rpc
from services.runtime.servicer.carriers import Carriers
from services.runtime.usecases.policy import Policy
from services.runtime.usecases.transfers.arrive import Arrivals, WantedArrival
from services.runtime.usecases.transfers.backups import Backups, WantedBackup
from services.runtime.usecases.transfers.pack import Packs


class TransferServicer(rpc.TransferServiceServicer):
    def __init__(
        self,
        packs: Packs,
        backups: Backups,
        arrivals: Arrivals,
        carriers: Carriers,
        policy: Policy,
        runner: Runner,
    ) -> None:
        self._arrivals = arrivals
        self._policy = policy
        self._carriers = carriers
        self._packs = packs
        self._backups = backups
        self._runner = runner

    def _answer(self, operation: Operation) -> common_pb2.Operation:
        return answer(self._runner, operation)

    async def PackRoot(self, request: pb.PackRootRequest, context: Any) -> AsyncIterator[pb.PackRootResponse]:
        compression = parse_compression(request.compression)
        which = request.instance
        packed = self._packs.root(
            which.project, which.name, which.snapshot, compression, _files(request.files)
        )
        async with aclosing(packed):
            async for item in packed:
                if item.chunk:
                    yield pb.PackRootResponse(chunk=item.chunk)
                else:
                    yield pb.PackRootResponse(packed_bytes=item.so_far)

    async def ImportInstance(
        self, request: pb.ImportInstanceRequest, context: Any
    ) -> pb.ImportInstanceResponse:
        wanted = WantedArrival(request.project, request.ticket, request.name, request.pool)
        return pb.ImportInstanceResponse(operation=self._answer(await self._arrivals.accept(wanted)))

    async def RunTransfer(
        self, request_iterator: AsyncIterator[pb.RunTransferRequest], context: Any
    ) -> AsyncIterator[pb.RunTransferResponse]:
        async with aclosing(self._carriers.run(request_iterator)) as running:
            async for response in running:
                yield response

    async def GetRoom(self, request: pb.GetRoomRequest, context: Any) -> pb.GetRoomResponse:
        return pb.GetRoomResponse(bytes=self._policy.room(request.project))

    async def CreateBackup(self, request: pb.CreateBackupRequest, context: Any) -> pb.CreateBackupResponse:
        wanted = WantedBackup(
            name=request.name,
            expires_at=request.expires_at.ToNanoseconds() / 1e9,
            instance_only=request.instance_only,
            compression=request.compression,
        )
        operation = await self._backups.create(request.instance.project, request.instance.name, wanted)
        return pb.CreateBackupResponse(operation=self._answer(operation))

    async def GetBackup(self, request: pb.GetBackupRequest, context: Any) -> pb.GetBackupResponse:
        _, found = self._backups.find(request.instance.project, request.instance.name, request.name)
        return pb.GetBackupResponse(backup=backup_message(found.record))

    async def ListBackups(self, request: pb.ListBackupsRequest, context: Any) -> pb.ListBackupsResponse:
        found = self._backups.list(request.instance.project, request.instance.name)
        return pb.ListBackupsResponse(backups=[backup_message(backup) for backup in found])

    async def RenameBackup(self, request: pb.RenameBackupRequest, context: Any) -> pb.RenameBackupResponse:
        operation = await self._backups.rename(
            request.instance.project, request.instance.name, request.name, request.new_name
        )
        return pb.RenameBackupResponse(operation=self._answer(operation))

    async def DeleteBackup(self, request: pb.DeleteBackupRequest, context: Any) -> pb.DeleteBackupResponse:
        operation = await self._backups.delete(request.instance.project, request.instance.name, request.name)
        return pb.DeleteBackupResponse(operation=self._answer(operation))

    async def ExportBackup(
        self, request: pb.ExportBackupRequest, context: Any
    ) -> AsyncIterator[pb.ExportBackupResponse]:
        instance, found = self._backups.find(request.instance.project, request.instance.name, request.name)
        await self._backups.tell_retrieved(instance, found.record)
        async with aclosing(self._backups.read(found.record)) as chunks:
            async for chunk in chunks:
                yield pb.ExportBackupResponse(chunk=chunk)


def _files(given: Any) -> dict[str, bytes]:
    """Return files by path. Raises: Invalid for a path that could leave the archive."""
    files = dict(given)
    for path in files:
        if any(part in ("", ".", "..") or "\0" in part for part in path.split("/")):
            raise Invalid("BAD_PATH", f"{path[:64]!r} is no plain relative path")
    return files


def backup_message(record: Backup) -> pb.Backup:
    """Return a backup as a message; those of volumes are alike."""
    message = pb.Backup(
        name=record.name,
        instance_only=record.instance_only,
        size_bytes=record.size,
        compression=record.compression or "gzip",
    )
    for name in ("created_at", "expires_at"):
        if seconds := getattr(record, name):
            getattr(message, name).FromNanoseconds(int(seconds * 1e9))
    return message
