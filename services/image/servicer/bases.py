"""The gRPC face of bases: convert, call, convert."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from core.errors import Invalid
from protos.podium.image.v1 import base_pb2 as pb
from protos.podium.image.v1 import base_pb2_grpc as rpc
from services.image.domain.backupindex import Entry
from services.image.usecases.bases import Bases


class BaseServicer(rpc.BaseServiceServicer):
    def __init__(self, bases: Bases) -> None:
        self._bases = bases

    async def UploadBackup(
        self, request_iterator: AsyncIterator[pb.UploadBackupRequest], context: Any
    ) -> pb.UploadBackupResponse:
        first = await anext(aiter(request_iterator), None)
        if first is None or not first.HasField("header"):
            raise Invalid("NO_HEADER", "An upload begins with its header")
        ticket, index = await self._bases.receive(first.header.project, _chunks(request_iterator))
        return pb.UploadBackupResponse(ticket=ticket, name=index.instance.name)

    async def TakeBackup(self, request: pb.TakeBackupRequest, context: Any) -> pb.TakeBackupResponse:
        base = self._bases.take(request.project, request.ticket)
        return pb.TakeBackupResponse(
            fingerprint=base.fingerprint,
            pool=base.index.pool,
            instance=_entry(base.index.instance),
            snapshots=[_entry(snapshot) for snapshot in base.index.snapshots],
            kind=base.index.kind,
        )


async def _chunks(requests: AsyncIterator[pb.UploadBackupRequest]) -> AsyncIterator[bytes]:
    async for request in requests:
        yield request.chunk


def _entry(entry: Entry) -> pb.BackupEntry:
    message = pb.BackupEntry(
        name=entry.name,
        description=entry.description,
        architecture=entry.architecture,
        ephemeral=entry.ephemeral,
        stateful=entry.stateful,
        profiles=entry.profiles,
        config=entry.config,
        base_dir=entry.base_dir,
        shift=entry.shift,
    )
    for name, options in entry.devices.items():
        message.devices[name].options.update(options)
        message.devices[name].SetInParent()
    for name in ("created_at", "last_used_at", "expires_at"):
        if seconds := getattr(entry, name):
            getattr(message, name).FromNanoseconds(int(seconds * 1e9))
    return message
