"""The gRPC face of files: convert, call, convert."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from typing import Any

from core.errors import Invalid, Unavailable
from core.rpc.line import Line
from protos.podium.runtime.v1 import files_pb2 as pb
from protos.podium.runtime.v1 import files_pb2_grpc as rpc
from services.runtime.domain.target import Target
from services.runtime.kernel.patience import Descriptor, Patience
from services.runtime.servicer.pouring import WORTHWHILE, pour_in, pour_out
from services.runtime.usecases.inside import files

_KINDS = {
    pb.FILE_TYPE_UNSPECIFIED: files.FILE,
    pb.FILE_TYPE_FILE: files.FILE,
    pb.FILE_TYPE_DIRECTORY: files.FOLDER,
    pb.FILE_TYPE_SYMLINK: files.LINK,
}
# What a message can hold (timestamp.proto), and a guest's file system need not keep to: years 1 to 9999.
_EARLIEST, _LATEST = -62135596800, 253402300799
_NUMBERS = {
    files.FILE: pb.FILE_TYPE_FILE,
    files.FOLDER: pb.FILE_TYPE_DIRECTORY,
    files.LINK: pb.FILE_TYPE_SYMLINK,
}


class FileServicer(rpc.FileServiceServicer):
    def __init__(
        self, roots: files.Roots, find: Callable[[str, str], Awaitable[Target]], lines: Mapping[str, Line]
    ) -> None:
        """*lines*: those to gateways of this host, which take pipes."""
        self._roots = roots
        self._find = find
        self._lines = lines
        self._patience = Patience()

    async def StatFile(self, request: pb.StatFileRequest, context: Any) -> pb.StatFileResponse:
        target = await self._find(request.file.project, request.file.name)
        async with self._roots.open(target) as root:
            info = await self._patience.call(target.id, root.use, files.stat_path, target, request.file.path)
        return pb.StatFileResponse(info=_shown(info))

    async def ReadFile(self, request: pb.ReadFileRequest, context: Any) -> AsyncIterator[pb.ReadFileResponse]:
        target, path = await self._find(request.file.project, request.file.name), request.file.path
        call = partial(self._patience.call, target.id)
        async with self._roots.open(target) as root:
            info, file = await call(
                root.use, files.open_file, target, path, undo=lambda found: _closed(found[1])
            )
            try:
                yield pb.ReadFileResponse(info=_shown(info))
                line = self._lines.get(request.line) if info.size >= WORTHWHILE else None
                if file and line:
                    yield pb.ReadFileResponse(lent=True)
                    await pour_out(call, file, path, line, request.ticket)
                    return
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
        target = await self._find(asked.file.project, asked.file.name)
        call = partial(self._patience.call, target.id)
        async with self._roots.open(target) as root:
            file = await call(root.use, files.create, target, path, _header(asked), undo=_closed)
            try:
                if file and asked.line and not asked.append:
                    await pour_in(call, file, path, self._line(asked.line), asked.ticket)
                async for request in requests:
                    if file and request.chunk:
                        await call(file.use, files.write_all, path, request.chunk)
            finally:
                _closed(file)
        return pb.WriteFileResponse()

    def _line(self, name: str) -> Line:
        if name not in self._lines:
            raise Unavailable("NO_LINE", "The line to the gateway was lost; try again")
        return self._lines[name]

    async def DeleteFile(self, request: pb.DeleteFileRequest, context: Any) -> pb.DeleteFileResponse:
        target = await self._find(request.file.project, request.file.name)
        async with self._roots.open(target) as root:
            await self._patience.call(target.id, root.use, files.delete, request.file.path)
        return pb.DeleteFileResponse()


def _closed(file: Descriptor | None) -> None:
    if file:
        file.close()


def _header(asked: pb.WriteHeader) -> files.Header:
    if asked.type not in _KINDS:
        raise Invalid("BAD_TYPE", f"There is no type {asked.type} of files", about="type")
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
    message.modified_at.FromSeconds(min(max(int(info.modified_at), _EARLIEST), _LATEST))
    return message
