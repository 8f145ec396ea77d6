"""The gRPC face of files: convert, call, convert."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

from core.errors import Invalid
from protos.podium.runtime.v1 import files_pb2 as pb
from protos.podium.runtime.v1 import files_pb2_grpc as rpc
from services.runtime.domain.target import Target
from services.runtime.kernel.patience import Descriptor, Patience
from services.runtime.usecases import files

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
        self._patience = Patience()

    async def StatFile(self, request: pb.StatFileRequest, context: Any) -> pb.StatFileResponse:
        target = self._find(request.file.project, request.file.name)
        async with self._roots.open(target) as root:
            info = await self._patience.call(target.id, root.use, files.stat_path, target, request.file.path)
        return pb.StatFileResponse(info=_shown(info))

    async def ReadFile(self, request: pb.ReadFileRequest, context: Any) -> AsyncIterator[pb.ReadFileResponse]:
        target, path = self._find(request.file.project, request.file.name), request.file.path
        call = partial(self._patience.call, target.id)
        async with self._roots.open(target) as root:
            info, file = await call(
                root.use, files.open_file, target, path, undo=lambda found: _closed(found[1])
            )
            try:
                yield pb.ReadFileResponse(info=_shown(info))
                while file and (chunk := await call(file.use, files.read, path)):
                    yield pb.ReadFileResponse(chunk=chunk)
            finally:
                _closed(file)

    async def WriteFile(
        self, request_iterator: AsyncIterator[pb.WriteFileRequest], context: Any
    ) -> pb.WriteFileResponse:
        requests = aiter(request_iterator)
        first = await anext(requests, None)
        if first is None or not first.HasField("header"):
            raise Invalid("NO_HEADER", "A write begins with its header")
        asked, path = first.header, first.header.file.path
        target = self._find(asked.file.project, asked.file.name)
        call = partial(self._patience.call, target.id)
        async with self._roots.open(target) as root:
            file = await call(root.use, files.create, target, path, _header(asked), undo=_closed)
            try:
                async for request in requests:
                    if file and request.chunk:
                        await call(file.use, files.write_all, path, request.chunk)
            finally:
                _closed(file)
        return pb.WriteFileResponse()

    async def DeleteFile(self, request: pb.DeleteFileRequest, context: Any) -> pb.DeleteFileResponse:
        target = self._find(request.file.project, request.file.name)
        async with self._roots.open(target) as root:
            await self._patience.call(target.id, root.use, files.delete, request.file.path)
        return pb.DeleteFileResponse()


def _closed(file: Descriptor | None) -> None:
    if file:
        file.close()


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
