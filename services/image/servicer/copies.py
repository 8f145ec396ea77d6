"""The gRPC face of copies for other members: convert, call, convert."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from core.errors import Invalid
from core.names import is_whole_fingerprint
from protos.podium.image.v1 import copy_pb2 as pb
from protos.podium.image.v1 import copy_pb2_grpc as rpc
from services.image.servicer.messages import COPY_PART_NUMBERS, COPY_PARTS
from services.image.usecases.copies import Copies


class CopyServicer(rpc.CopyServiceServicer):
    def __init__(self, copies: Copies) -> None:
        self._copies = copies

    async def DescribeCopy(self, request: pb.DescribeCopyRequest, context: Any) -> pb.DescribeCopyResponse:
        found = await self._copies.describe(_checked(request.fingerprint), hashed=request.hashed)
        files = [
            pb.CopyFile(
                part=COPY_PART_NUMBERS[file.part],
                filename=file.name,
                size_bytes=file.size,
                sha256=file.sha256,
            )
            for file in found
        ]
        return pb.DescribeCopyResponse(files=files)

    async def ReadCopy(self, request: pb.ReadCopyRequest, context: Any) -> AsyncIterator[pb.ReadCopyResponse]:
        fingerprint = _checked(request.fingerprint)
        if request.offset < 0:
            raise Invalid("BAD_PIECE", "A piece begins at an offset of zero or more")
        reading = self._copies.read(fingerprint, _part(request.part), request.offset)
        async with aclosing(reading) as chunks:
            async for chunk in chunks:
                yield pb.ReadCopyResponse(chunk=chunk)


def _part(number: Any) -> str:
    if number not in COPY_PARTS:
        raise Invalid("BAD_PIECE", "The files of an image are unified, metadata and rootfs")
    return COPY_PARTS[number]


def _checked(fingerprint: str) -> str:
    """Raises: Invalid for what is no whole fingerprint, which names files here."""
    if not is_whole_fingerprint(fingerprint):
        raise Invalid("BAD_FINGERPRINT", "The full fingerprint of an image is needed")
    return fingerprint
