"""The gRPC face: convert, call, convert."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import Any

import orjson

from core.errors import Invalid
from core.operations.runner import Runner
from core.operations.servicer import answer
from core.records import Alias, Image
from core.state import keys
from core.state.repository import Entry
from protos.podium.image.v1 import image_pb2 as pb
from protos.podium.image.v1 import image_pb2_grpc as rpc
from services.image.servicer.lending import Lending
from services.image.servicer.messages import PART_NUMBERS, PARTS, alias_message, image_message, profiles_of
from services.image.store import ImageStore
from services.image.usecases.builds import Builds, Wanted
from services.image.usecases.images import Images
from services.image.usecases.imports import Header, Imports

_CHUNK = 1 << 20


class ImageServicer(rpc.ImageServiceServicer):
    def __init__(
        self,
        store: ImageStore,
        images: Images,
        imports: Imports,
        builds: Builds,
        runner: Runner,
        lending: Lending,
    ) -> None:
        self._store = store
        self._images = images
        self._imports = imports
        self._builds = builds
        self._runner = runner
        self._lending = lending

    async def UploadImage(
        self, request_iterator: AsyncIterator[pb.UploadImageRequest], context: Any
    ) -> pb.UploadImageResponse:
        first = await anext(aiter(request_iterator), None)
        if first is None or not first.HasField("header"):
            raise Invalid("NO_HEADER", "An upload begins with its header")
        h = first.header
        header = Header(
            h.project,
            h.filename,
            h.public,
            dict(h.properties),
            h.expected_fingerprint,
            {a.name: a.description for a in h.aliases},
            auto_update=h.auto_update,
            profiles=tuple(h.profiles) or ("default",),
            expires_at=h.expires_at.ToNanoseconds() / 1e9,
            wait_secret=h.wait_secret,
            asked_in=h.asked_in,
        )
        operation = await self._imports.receive(
            str(uuid.uuid4()), header, self._parts(h.line, request_iterator)
        )
        return pb.UploadImageResponse(operation=answer(self._runner, operation))

    async def _parts(
        self, line: str, requests: AsyncIterator[pb.UploadImageRequest]
    ) -> AsyncIterator[tuple[str, bytes | int]]:
        """Yield the bytes of an upload as they come, or pipes that bring them."""
        part = "unified"
        async for request in requests:
            kind = request.WhichOneof("message")
            if kind == "part":
                part = PARTS.get(request.part, "unified")
            elif kind == "ticket":
                yield part, self._lending.pipe(line, request.ticket)
            else:
                yield part, request.chunk

    async def GetImage(self, request: pb.GetImageRequest, context: Any) -> pb.GetImageResponse:
        ref = request.image
        prefix = ref.fingerprint
        if ref.WhichOneof("ref") == "alias":
            prefix = self._store.alias(request.project, ref.alias).record.target
        return pb.GetImageResponse(image=self._shown(await self._store.image(request.project, prefix)))

    async def ListImages(self, request: pb.ListImagesRequest, context: Any) -> pb.ListImagesResponse:
        entries = self._store.images.entries(keys.images(request.project))
        shown = [self._shown(e) for e in entries if e.record.public or not request.public_only]
        return pb.ListImagesResponse(images=sorted(shown, key=lambda i: i.uploaded_at.ToNanoseconds()))

    async def UpdateImage(self, request: pb.UpdateImageRequest, context: Any) -> pb.UpdateImageResponse:
        wanted = Image(
            fingerprint=request.fingerprint,
            properties=dict(request.properties),
            public=request.public,
            auto_update=request.auto_update,
            profiles=profiles_of(request),
            expires_at=request.expires_at.ToNanoseconds() / 1e9,
        )
        entry = await self._images.update(
            request.project, wanted, expected_revision=request.expected_revision
        )
        return pb.UpdateImageResponse(image=self._shown(entry))

    async def DeleteImage(self, request: pb.DeleteImageRequest, context: Any) -> pb.DeleteImageResponse:
        operation = await self._images.delete(request.project, request.fingerprint, asked_in=request.asked_in)
        return pb.DeleteImageResponse(operation=answer(self._runner, operation))

    async def ExportImage(
        self, request: pb.ExportImageRequest, context: Any
    ) -> AsyncIterator[pb.ExportImageResponse]:
        image = (await self._store.image(request.project, request.fingerprint)).record
        await self._images.ensure(image.fingerprint)
        tickets = iter(request.tickets if self._lending.has(request.line) else ())
        for part, path, filename in await asyncio.to_thread(self._images.files, image):
            header = pb.ExportHeader(
                part=PART_NUMBERS[part], filename=filename, size_bytes=path.stat().st_size
            )
            yield pb.ExportImageResponse(header=header)
            if ticket := next(tickets, ""):
                self._lending.lend(request.line, ticket, path)
                yield pb.ExportImageResponse(lent=True)
                continue
            with path.open("rb") as file:
                while chunk := await asyncio.to_thread(file.read, _CHUNK):
                    yield pb.ExportImageResponse(chunk=chunk)

    async def PrepareImage(self, request: pb.PrepareImageRequest, context: Any) -> pb.PrepareImageResponse:
        ready = await self._images.prepared(request.project, request.fingerprint)
        return pb.PrepareImageResponse(
            squashfs_path=str(ready.squashfs),
            rootfs_dir=ready.rootfs_dir,
            metadata_json=orjson.dumps(ready.metadata).decode(),
        )

    async def BuildImage(self, request: pb.BuildImageRequest, context: Any) -> pb.BuildImageResponse:
        operation = await self._builds.accept(
            Wanted(
                project=request.project,
                distribution=request.distribution,
                release=request.release,
                packages=tuple(request.packages),
                aliases=tuple(request.aliases),
                force=request.force,
                text=_recipe(request.recipe),
            )
        )
        return pb.BuildImageResponse(operation=answer(self._runner, operation))

    async def CreateAlias(self, request: pb.CreateAliasRequest, context: Any) -> pb.CreateAliasResponse:
        entry = await self._images.create_alias(_alias_from(request.alias))
        return pb.CreateAliasResponse(alias=alias_message(entry))

    async def GetAlias(self, request: pb.GetAliasRequest, context: Any) -> pb.GetAliasResponse:
        return pb.GetAliasResponse(alias=alias_message(self._store.alias(request.project, request.name)))

    async def ListAliases(self, request: pb.ListAliasesRequest, context: Any) -> pb.ListAliasesResponse:
        entries = self._store.aliases.entries(keys.aliases(request.project))
        return pb.ListAliasesResponse(aliases=[alias_message(e) for e in entries])

    async def UpdateAlias(self, request: pb.UpdateAliasRequest, context: Any) -> pb.UpdateAliasResponse:
        entry = await self._images.update_alias(
            _alias_from(request.alias), expected_revision=request.expected_revision
        )
        return pb.UpdateAliasResponse(alias=alias_message(entry))

    async def RenameAlias(self, request: pb.RenameAliasRequest, context: Any) -> pb.RenameAliasResponse:
        entry = await self._images.rename_alias(request.project, request.name, request.new_name)
        return pb.RenameAliasResponse(alias=alias_message(entry))

    async def DeleteAlias(self, request: pb.DeleteAliasRequest, context: Any) -> pb.DeleteAliasResponse:
        await self._images.delete_alias(request.project, request.name)
        return pb.DeleteAliasResponse()

    def _shown(self, entry: Entry[Image]) -> pb.Image:
        return image_message(self._store, entry)


def _recipe(text: bytes) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError:
        raise Invalid("BAD_RECIPE", "The recipe cannot be used: it is not UTF-8") from None


def _alias_from(message: pb.Alias) -> Alias:
    return Alias(message.project, message.name, message.description, message.target)
