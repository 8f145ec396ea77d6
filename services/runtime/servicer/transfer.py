"""The gRPC face of transfers: convert, call, convert."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from core.compression import parse_compression
from core.errors import Invalid
from protos.podium.runtime.v1 import transfer_pb2 as pb
from protos.podium.runtime.v1 import transfer_pb2_grpc as rpc
from services.runtime.usecases.pack import Packs


class TransferServicer(rpc.TransferServiceServicer):
    def __init__(self, packs: Packs) -> None:
        self._packs = packs

    async def PackRoot(self, request: pb.PackRootRequest, context: Any) -> AsyncIterator[pb.PackRootResponse]:
        compression = parse_compression(request.compression)
        packed = self._packs.root(
            request.instance.project, request.instance.name, compression, _files(request.files)
        )
        async with aclosing(packed):
            async for item in packed:
                if item.chunk:
                    yield pb.PackRootResponse(chunk=item.chunk)
                else:
                    yield pb.PackRootResponse(packed_bytes=item.so_far)


def _files(given: Any) -> dict[str, bytes]:
    """Return files by path. Raises: Invalid for a path that could leave the archive."""
    files = dict(given)
    for path in files:
        if any(part in ("", ".", "..") or "\0" in part for part in path.split("/")):
            raise Invalid("BAD_PATH", f"{path[:64]!r} is no plain relative path")
    return files
