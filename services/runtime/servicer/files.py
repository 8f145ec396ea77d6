"""The gRPC face of files: convert, call, convert."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from typing import Any

from core.errors import Invalid
from protos.podium.runtime.v1 import files_pb2 as pb
from protos.podium.runtime.v1 import files_pb2_grpc as rpc
from services.runtime.domain.target import Target
from services.runtime.usecases import files

_CHUNK = 1 << 20
_KINDS = {
    pb.FILE_TYPE_UNSPECIFIED: files.FILE,
    pb.FILE_TYPE_FILE: files.FILE,
    pb.FILE_TYPE_DIRECTORY: files.FOLDER,
    pb.FILE_TYPE_SYMLINK: files.LINK,
}
_NUMBERS = {
    files.FILE: pb.FILE_TYPE_FILE,
    files.FOLDER: pb.FILE_TYPE_DIRECTORY,
    files.LINK: pb.FILE_TYPE_SYMLINK,
}


class FileServicer(rpc.FileServiceServicer):
    def __init__(self, roots: files.Roots, find: Callable[[str, str], Target]) -> None:
        self._roots = roots
        self._find = find

    async def StatFile(self, request: pb.StatFileRequest, context: Any) -> pb.StatFileResponse:
        target = self._find(request.file.project, request.file.name)
        async with self._roots.open(target) as root:
            info = await asyncio.to_thread(files.stat_path, root, target, request.file.path)
        return pb.StatFileResponse(info=_shown(info))

    async def ReadFile(self, request: pb.ReadFileRequest, context: Any) -> AsyncIterator[pb.ReadFileResponse]:
        target = self._find(request.file.project, request.file.name)
        async with self._roots.open(target) as root:
            info, fd = await asyncio.to_thread(files.open_file, root, target, request.file.path)
            try:
                yield pb.ReadFileResponse(info=_shown(info))
                while fd >= 0 and (chunk := await asyncio.to_thread(os.read, fd, _CHUNK)):
                    yield pb.ReadFileResponse(chunk=chunk)
            finally:
                if fd >= 0:
                    os.close(fd)

    async def WriteFile(
        self, request_iterator: AsyncIterator[pb.WriteFileRequest], context: Any
    ) -> pb.WriteFileResponse:
        requests = aiter(request_iterator)
        first = await anext(requests, None)
        if first is None or not first.HasField("header"):
            raise Invalid("NO_HEADER", "A write begins with its header")
        asked = first.header
        target = self._find(asked.file.project, asked.file.name)
        async with self._roots.open(target) as root:
            fd = await asyncio.to_thread(files.create, root, target, asked.file.path, _header(asked))
            try:
                async for request in requests:
                    if fd >= 0 and request.chunk:
                        await asyncio.to_thread(files.write_all, fd, request.chunk)
            finally:
                if fd >= 0:
                    os.close(fd)
        return pb.WriteFileResponse()

    async def DeleteFile(self, request: pb.DeleteFileRequest, context: Any) -> pb.DeleteFileResponse:
        target = self._find(request.file.project, request.file.name)
        async with self._roots.open(target) as root:
            await asyncio.to_thread(files.delete, root, request.file.path)
        return pb.DeleteFileResponse()


def _header(asked: pb.WriteHeader) -> files.Header:
    return files.Header(
        kind=_KINDS[asked.type],
        uid=asked.uid if asked.HasField("uid") else None,
        gid=asked.gid if asked.HasField("gid") else None,
        mode=asked.mode if asked.HasField("mode") else None,
        append=asked.append,
        target=asked.target,
    )


def _shown(info: files.Info) -> pb.FileInfo:
    message = pb.FileInfo(
        type=_NUMBERS[info.kind],
        uid=info.uid,
        gid=info.gid,
        mode=info.mode,
        size_bytes=info.size,
        entries=info.entries,
        target=info.target,
    )
    message.modified_at.FromNanoseconds(int(info.modified_at * 1e9))
    return message
