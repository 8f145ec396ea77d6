"""The gRPC face of what others may have of images: convert, call, convert."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from core.errors import Invalid
from core.operations.runner import Runner
from core.operations.servicer import answer
from core.rpc.identity import current_identity
from protos.podium.common.v1 import common_pb2
from protos.podium.image.v1 import image_pb2
from protos.podium.image.v1 import share_pb2 as pb
from protos.podium.image.v1 import share_pb2_grpc as rpc
from services.image.servicer.lending import Lending
from services.image.servicer.messages import PART_NUMBERS, PARTS, image_message
from services.image.store import ImageStore
from services.image.usecases.pushes import Pushes
from services.image.usecases.pushes import Wanted as WantedPush
from services.image.usecases.secrets import Awaited, Secrets
from services.image.usecases.sharing import File, Reader, Sharing, whole


class ShareServicer(rpc.ShareServiceServicer):
    def __init__(
        self,
        store: ImageStore,
        sharing: Sharing,
        tokens: Secrets,
        pushes: Pushes,
        runner: Runner,
        lending: Lending,
    ) -> None:
        self._lending = lending
        self._store = store
        self._sharing = sharing
        self._tokens = tokens
        self._pushes = pushes
        self._runner = runner

    async def ListOffers(self, request: pb.ListOffersRequest, context: Any) -> pb.ListOffersResponse:
        offers = [
            pb.Offer(image=image_message(self._store, entry), files=map(_file, files))
            for entry, files in await self._sharing.offers(request.project)
        ]
        return pb.ListOffersResponse(offers=offers)

    async def GetFiles(self, request: pb.GetFilesRequest, context: Any) -> pb.GetFilesResponse:
        entry = await self._sharing.image(request.project, request.fingerprint, _reader(request.reader))
        files = await self._sharing.files(entry.record)
        return pb.GetFilesResponse(image=image_message(self._store, entry), files=map(_file, files))

    async def ExportFile(
        self, request: pb.ExportFileRequest, context: Any
    ) -> AsyncIterator[pb.ExportFileResponse]:
        reader = _reader(request.reader)
        entry = await self._sharing.image(request.project, request.fingerprint, reader)
        if request.part not in PARTS or request.offset < 0 or request.length < 0:
            raise Invalid(
                "BAD_PIECE", "A piece is of unified, metadata or rootfs, and has an offset and a length"
            )
        piece = self._sharing.read(
            entry.record, PARTS[request.part], reader, offset=request.offset, length=request.length
        )
        async with aclosing(piece) as chunks:
            async for chunk in chunks:
                yield pb.ExportFileResponse(chunk=chunk)

    async def ExportDescriptors(
        self, request: pb.ExportDescriptorsRequest, context: Any
    ) -> pb.ExportDescriptorsResponse:
        reader = _reader(request.reader)
        entry = await self._sharing.image(request.project, request.fingerprint, reader)
        wanted = dict(zip(request.tickets, request.parts, strict=False))
        if not set(wanted.values()) <= set(PARTS):
            raise Invalid("BAD_PIECE", "The files of an image are unified, metadata and rootfs")
        await self._sharing.here(entry.record)
        async with self._sharing.opened(entry.record, reader):
            for ticket, part in wanted.items():
                with whole(entry.record):
                    self._lending.lend(request.line, ticket, self._sharing.path(entry.record, PARTS[part]))
        return pb.ExportDescriptorsResponse()

    async def NoteRetrieval(self, request: pb.NoteRetrievalRequest, context: Any) -> pb.NoteRetrievalResponse:
        await self._sharing.note_retrieval(request.project, request.fingerprint)
        return pb.NoteRetrievalResponse()

    async def CreateImageSecret(
        self, request: pb.CreateImageSecretRequest, context: Any
    ) -> pb.CreateImageSecretResponse:
        operation = await self._tokens.create(request.project, request.fingerprint, asked_in=request.asked_in)
        return pb.CreateImageSecretResponse(operation=answer(self._runner, operation))

    async def AwaitImage(self, request: pb.AwaitImageRequest, context: Any) -> pb.AwaitImageResponse:
        wanted = Awaited(
            project=request.project,
            fingerprint=request.fingerprint,
            public=request.public,
            properties=dict(request.properties),
            aliases={alias.name: alias.description for alias in request.aliases},
            profiles=tuple(request.profiles),
            expires_at=request.expires_at.ToNanoseconds() / 1e9,
            auto_update=request.auto_update,
            asked_in=request.asked_in,
        )
        operation = await self._tokens.expect(wanted)
        return pb.AwaitImageResponse(operation=answer(self._runner, operation))

    async def TakeAwaited(self, request: pb.TakeAwaitedRequest, context: Any) -> pb.TakeAwaitedResponse:
        wanted, token = await self._tokens.take(request.project, request.fingerprint, request.secret)
        header = image_pb2.UploadHeader(
            project=wanted.project,
            public=wanted.public,
            properties=wanted.properties,
            expected_fingerprint=wanted.fingerprint,
            aliases=[image_pb2.Alias(name=n, description=d) for n, d in wanted.aliases.items()],
            profiles=wanted.profiles,
            auto_update=wanted.auto_update,
            asked_in=wanted.asked_in,
            wait_secret=secrets.token_hex(32),
        )
        if wanted.expires_at:
            header.expires_at.FromNanoseconds(int(wanted.expires_at * 1e9))
        return pb.TakeAwaitedResponse(header=header, requestor=common_pb2.Requestor(**token.requestor))

    async def PushImage(self, request: pb.PushImageRequest, context: Any) -> pb.PushImageResponse:
        wanted = WantedPush(
            project=request.project,
            fingerprint=request.fingerprint,
            target=request.target,
            certificate=request.certificate,
            secret=request.secret,
            target_project=request.target_project,
            profiles=tuple(request.profiles),
            # A caller who is confined to projects may not look around in this host's networks.
            may_reach_inside=current_identity().projects is None,
            asked_in=request.asked_in,
        )
        operation = await self._pushes.accept(wanted)
        return pb.PushImageResponse(operation=answer(self._runner, operation))


def _reader(message: pb.Reader) -> Reader:
    return Reader(message.is_guest, message.secret)


def _file(file: File) -> pb.File:
    return pb.File(part=PART_NUMBERS[file.part], filename=file.name, size_bytes=file.size, sha256=file.sha256)
