"""Receiving images: hash while storing, convert, check, then make visible in one transaction."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from core.errors import AlreadyExists, Invalid
from core.names import alias_name
from core.operations.operation import Context, Operation, Step, Story
from core.operations.runner import Runner
from core.records import Alias, Image
from core.state import keys
from services.image.domain import metadata as meta
from services.image.ports import Blobs, Converter
from services.image.store import ImageStore

KIND = "image.import"
_MAX_UPLOAD = 256 << 30


@dataclass(frozen=True)
class Header:
    """What is known of an upload before its bytes."""

    project: str
    filename: str = ""
    public: bool = False
    properties: dict[str, str] = field(default_factory=dict)
    expected: str = ""
    aliases: tuple[str, ...] = ()


class Imports:
    def __init__(self, store: ImageStore, blobs: Blobs, converter: Converter, runner: Runner) -> None:
        self._store = store
        self._blobs = blobs
        self._converter = converter
        self._runner = runner
        runner.register(
            Story(
                KIND,
                "Downloading image",
                (Step("convert", self._convert, self._drop), Step("seal", self._seal)),
            )
        )

    async def receive(self, id: str, header: Header, parts: AsyncIterator[tuple[str, bytes]]) -> Operation:
        """Store the parts to their end, then accept the operation that makes an image of them."""
        for name in header.aliases:
            alias_name(name)
        try:
            fingerprint, size, names = await self._store_parts(self._blobs.staging(id), parts)
            return await self._runner.accept(
                KIND,
                id=id,
                project=header.project,
                input={
                    "project": header.project,
                    "filename": header.filename,
                    "public": header.public,
                    "properties": header.properties,
                    "expected": header.expected,
                    "aliases": list(header.aliases),
                    "fingerprint": fingerprint,
                    "size": size,
                    "split": names == ["metadata", "rootfs"],
                },
            )
        except BaseException:
            self._blobs.drop_staging(id)
            raise

    async def _store_parts(
        self, folder: Path, parts: AsyncIterator[tuple[str, bytes]]
    ) -> tuple[str, int, list[str]]:
        digest, size, names = hashlib.sha256(), 0, list[str]()
        fd = -1
        try:
            async for part, chunk in parts:
                if not names or names[-1] != part:
                    fd = _next_file(fd, folder, part)
                    names.append(part)
                size += len(chunk)
                if size > _MAX_UPLOAD:
                    raise Invalid("TOO_LARGE", "The image is larger than 256 GiB")
                await asyncio.to_thread(_write, fd, chunk, digest)
        finally:
            if fd >= 0:
                os.close(fd)
        if names not in (["unified"], ["metadata", "rootfs"]) or not size:
            raise Invalid(
                "BAD_UPLOAD", "An image is one file, or metadata followed by rootfs; it had neither"
            )
        return digest.hexdigest(), size, names

    async def _convert(self, ctx: Context) -> None:
        given = ctx.input
        fingerprint, id = given["fingerprint"], ctx.operation.id
        ctx.result(fingerprint=fingerprint, size=str(given["size"]))
        if given["expected"] and given["expected"] != fingerprint:
            raise Invalid(
                "FINGERPRINT", f"fingerprints don't match, got {fingerprint} expected {given['expected']}"
            )
        self._refuse_known(ctx.operation, fingerprint)
        folder, split = self._blobs.staging(id), given["split"]
        ready = self._blobs.squashfs(fingerprint)
        if not ready.exists():
            made = folder / "made.squashfs"
            await self._converter.convert(self._received(ctx, "rootfs" if split else "unified"), made)
            ready = made
        if not split and not await self._converter.is_directory(ready, "rootfs"):
            raise Invalid("NO_ROOTFS", "The image has no folder rootfs; it is not a container image")
        ctx.scratch["metadata"] = await self._metadata(ctx, ready, split=split)

    def _refuse_known(self, mine: Operation, fingerprint: str) -> None:
        """Raises: AlreadyExists for an image or alias that is there, or arrives in an older operation."""
        older = [
            op
            for op in map(self._runner.get, self._runner.live_of(KIND))
            if op.project == mine.project
            and op.input["fingerprint"] == fingerprint
            and (op.created_at, op.id) < (mine.created_at, mine.id)
        ]
        if older or self._store.images.get(keys.image(mine.project, fingerprint)):
            raise AlreadyExists("EXISTS", "Image with same fingerprint already exists", about=fingerprint)
        for name in mine.input["aliases"]:
            if self._store.aliases.get(keys.alias(mine.project, name)):
                raise AlreadyExists("EXISTS", f'Alias "{name}" already exists', about=name)

    def _received(self, ctx: Context, part: str) -> Path:
        """Return where a received file lies: staged, or in its place when a crash came after that."""
        staged = self._blobs.staging(ctx.operation.id) / part
        return staged if staged.exists() else self._blobs.part(ctx.input["fingerprint"], part)

    async def _metadata(self, ctx: Context, squashfs: Path, *, split: bool) -> dict[str, object]:
        source = squashfs
        if split:
            source = self._blobs.staging(ctx.operation.id) / "metadata.squashfs"
            await self._converter.convert(self._received(ctx, "metadata"), source)
        parsed = meta.parse(await self._converter.read(source, "metadata.yaml", meta.MAX_BYTES))
        if parsed["templates"] and not await self._converter.is_directory(source, "templates"):
            raise Invalid("BAD_TEMPLATES", "metadata.yaml names templates, but the image has no such folder")
        return parsed

    async def _drop(self, ctx: Context) -> None:
        self._blobs.drop_staging(ctx.operation.id)

    async def _seal(self, ctx: Context) -> None:
        given, metadata = ctx.input, ctx.scratch["metadata"]
        fingerprint, project = given["fingerprint"], given["project"]
        await asyncio.to_thread(self._blobs.keep, ctx.operation.id, fingerprint, split=given["split"])
        self._blobs.drop_staging(ctx.operation.id)
        image = Image(
            project=project,
            fingerprint=fingerprint,
            properties={**metadata["properties"], **given["properties"]},
            public=given["public"],
            architecture=metadata["architecture"],
            filename=given["filename"],
            size_bytes=given["size"],
            split=given["split"],
            created_at=float(metadata["creation_date"]),
            expires_at=float(metadata["expiry_date"]),
            uploaded_at=time.time(),
            metadata=metadata,
        )
        key = keys.image(project, fingerprint)
        ctx.txn.absent(key).put(key, image).emit(ctx.event("image-created", "images", fingerprint))
        for name in given["aliases"]:
            key = keys.alias(project, name)
            ctx.txn.absent(key).put(key, Alias(project, name, "", fingerprint))
            ctx.txn.emit(ctx.event("image-alias-created", "aliases", name))

    async def clean(self) -> None:
        """Remove what no record and no running operation needs. Call after the runner started."""
        live = set(self._runner.live_of(KIND))
        for id in self._blobs.staged():
            if id not in live:
                self._blobs.drop_staging(id)
        await self.sweep()

    async def sweep(self) -> None:
        """Remove files that nothing needs any more, for example after an image's last instance went."""
        for fingerprint in await asyncio.to_thread(self._blobs.fingerprints):
            self.remove_unused(fingerprint)

    def remove_unused(self, fingerprint: str) -> None:
        """Remove the files of an image that no project has and no running operation brings."""
        arriving = (self._runner.get(id).input["fingerprint"] for id in self._runner.live_of(KIND))
        if fingerprint not in arriving and not self._store.is_used(fingerprint):
            self._blobs.remove(fingerprint)


def _next_file(fd: int, folder: Path, part: str) -> int:
    if fd >= 0:
        os.close(fd)
    return os.open(folder / part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)


def _write(fd: int, chunk: bytes, digest: hashlib._Hash) -> None:
    digest.update(chunk)
    view = memoryview(chunk)
    while view:
        view = view[os.write(fd, view) :]
