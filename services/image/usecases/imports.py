"""From received files to an image: convert, check, then make visible in one transaction."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from core.errors import AlreadyExists, Invalid, Unavailable
from core.logs import get_logger
from core.names import alias_name
from core.operations.operation import Context, Operation, Step, Story
from core.operations.runner import Runner
from core.records import Alias, Image, ImageCopy
from core.state import keys
from services.image.domain import metadata as meta
from services.image.formats.form import Form, form_of
from services.image.ports import Blobs, Converter, HeadStart
from services.image.store import ImageStore
from services.image.usecases.receive import MADE, Receiver
from services.image.usecases.rooms import Count, Rooms

KIND = "image.import"
log = get_logger(__name__)
_KEPT_ASIDE_S = 30 * 86400.0
_HEAD_START_S = 900.0


@dataclass(frozen=True)
class Header:
    """What is known of an upload before its bytes."""

    project: str
    filename: str = ""
    public: bool = False
    properties: dict[str, str] = field(default_factory=dict)
    expected: str = ""
    aliases: dict[str, str] = field(default_factory=dict)
    """Name to description."""
    created_at: float = 0.0
    """When the image was made; 0.0 where metadata.yaml tells."""
    is_ours: bool = False
    """Its rootfs is a squashfs that Podium made this moment: the kernel may mount it as it is."""
    is_described: bool = False
    """Its properties are all it has; those of metadata.yaml do not count."""
    auto_update: bool = False
    cached: bool = False
    profiles: tuple[str, ...] = ("default",)
    origin: dict[str, str] = field(default_factory=dict)
    expires_at: float = 0.0
    """When it goes; 0.0 where metadata.yaml tells."""
    wait_secret: str = ""
    """By which a stranger may wait for the operation."""
    asked_in: str = ""
    """The project whose clients hear of the operation, where that is another one."""


async def nothing(fingerprint: str) -> None:
    pass


class Imports:
    def __init__(
        self,
        store: ImageStore,
        blobs: Blobs,
        converter: Converter,
        runner: Runner,
        rooms: Rooms | None = None,
        forget: Callable[[str], Awaitable[None]] = nothing,
    ) -> None:
        """*forget*: is told of the files that this member has no more."""
        self._forget = forget
        self._rooms = rooms
        self._store = store
        self._blobs = blobs
        self._converter = converter
        self._runner = runner
        self._head_starts: dict[str, HeadStart] = {}
        runner.register(
            Story(
                KIND,
                "Downloading image",
                (Step("convert", self._convert, self._drop), Step("seal", self._seal)),
            )
        )

    async def receive(
        self, id: str, header: Header, parts: AsyncIterator[tuple[str, bytes | int]]
    ) -> Operation:
        """Read the parts (see Receiver), then accept the operation that makes an image of them."""
        for name in header.aliases:
            alias_name(name)
        try:
            async with self._counted(header.project) as count:
                folder = self._blobs.staging(id)
                received = await Receiver(folder, self._converter, count, is_image=True).receive(parts)
            if received.head_start:
                self._head_starts[id] = received.head_start
        except BaseException:
            # gRPC cancels a call more than once; the files must go all the same.
            await asyncio.shield(self._drop_files(id))
            raise
        return await self._runner.accept(
            KIND,
            id=id,
            project=header.asked_in or header.project,
            metadata={"secret": header.wait_secret} if header.wait_secret else {},
            input={
                "project": header.project,
                "filename": header.filename,
                "public": header.public,
                "properties": header.properties,
                "is_described": header.is_described,
                "expected": header.expected,
                "aliases": header.aliases,
                "created_at": header.created_at,
                "is_ours": header.is_ours,
                "auto_update": header.auto_update,
                "cached": header.cached,
                "profiles": list(header.profiles),
                "origin": header.origin,
                "expires_at": header.expires_at,
                "fingerprint": received.fingerprint,
                "size": received.size,
                "split": received.split,
            },
            if_refused=lambda: self._drop_files(id),
        )

    def _counted(self, project: str) -> AbstractAsyncContextManager[Count | None]:
        return self._rooms.counted(project) if self._rooms else nullcontext()

    async def stop(self) -> None:
        """Let go what the uploads of a moment ago began; operations begin anew after a restart."""
        for id in list(self._head_starts):
            await self._drop_head_start(id)

    async def _convert(self, ctx: Context) -> None:
        given = ctx.input
        fingerprint = given["fingerprint"]
        ctx.result(fingerprint=fingerprint, size=str(given["size"]))
        if given["expected"] and given["expected"] != fingerprint:
            raise Invalid(
                "FINGERPRINT", f"fingerprints don't match, got {fingerprint} expected {given['expected']}"
            )
        self._refuse_known(ctx.operation, fingerprint)
        ready = await self._squashfs(ctx)
        if lost := self._converter.lost_acls(ready):
            log.warning("image_acls_lost", fingerprint=fingerprint, files=lost)
            ctx.result(warning=f"Access control lists of {lost} files are left out: a squashfs has none")
        split = given["split"]
        has_root, metadata = await asyncio.gather(
            self._converter.is_directory(ready, "/" if split else "rootfs"),
            self._metadata(ctx, ready, split=split),
        )
        if not has_root:
            raise Invalid("NO_ROOTFS", "The image has no folder rootfs; it is not a container image")
        ctx.scratch["metadata"] = metadata

    async def _squashfs(self, ctx: Context) -> Path:
        """Return the image as a complete squashfs: another project's, the head start's, or a new one."""
        id, made = ctx.operation.id, self._blobs.staging(ctx.operation.id) / MADE
        ready = self._blobs.squashfs(ctx.input["fingerprint"])
        if ready.exists():
            await self._drop_head_start(id)
            made.unlink(missing_ok=True)
            return ready
        if ctx.input.get("is_ours"):
            made.unlink(missing_ok=True)
            made.hardlink_to(self._received(ctx, "rootfs"))
            return made
        # A file in staging proves nothing: a crash may have left it half written.
        if not await self._finished_head_start(id):
            part = "rootfs" if ctx.input["split"] else "unified"
            await self._converter.convert(self._received(ctx, part), made, partial(_tell, ctx), form_of(part))
        return made

    async def _finished_head_start(self, id: str) -> bool:
        head_start = self._head_starts.get(id)
        try:
            return head_start is not None and await head_start.done(_HEAD_START_S)
        finally:
            await self._drop_head_start(id)

    async def _drop_head_start(self, id: str) -> None:
        if head_start := self._head_starts.pop(id, None):
            await head_start.drop()

    def _refuse_known(self, mine: Operation, fingerprint: str) -> None:
        """Raises: AlreadyExists for an image or alias that is there, or arrives in an older operation."""
        project = mine.input["project"]
        older = [
            op
            for op in map(self._runner.get, self._runner.live_of(KIND))
            if op.input["project"] == project
            and op.input["fingerprint"] == fingerprint
            and (op.created_at, op.id) < (mine.created_at, mine.id)
        ]
        if older or self._store.images.get(keys.image(project, fingerprint)):
            raise AlreadyExists("EXISTS", "Image with same fingerprint already exists", about=fingerprint)
        for name in mine.input["aliases"]:
            if self._store.aliases.get(keys.alias(project, name)):
                raise AlreadyExists("EXISTS", f'Alias "{name}" already exists', about=name)

    def _received(self, ctx: Context, part: str) -> Path:
        """Return where a received file lies: staged, or in its place when a crash came after that."""
        staged = self._blobs.staging(ctx.operation.id) / part
        return staged if staged.exists() else self._blobs.part(ctx.input["fingerprint"], part)

    async def _metadata(self, ctx: Context, squashfs: Path, *, split: bool) -> dict[str, object]:
        source = squashfs
        if split:
            source = self._blobs.staging(ctx.operation.id) / "metadata.squashfs"
            await self._converter.convert(self._received(ctx, "metadata"), source, form=Form.METADATA)
        parsed = meta.parse(await self._converter.read(source, "metadata.yaml", meta.MAX_BYTES))
        if parsed["templates"] and not await self._converter.is_directory(source, "templates"):
            raise Invalid("BAD_TEMPLATES", "metadata.yaml names templates, but the image has no such folder")
        return parsed

    async def _drop(self, ctx: Context) -> None:
        await self._drop_files(ctx.operation.id)

    async def _drop_files(self, id: str) -> None:
        await self._drop_head_start(id)
        await asyncio.to_thread(self._blobs.drop_staging, id)

    async def _seal(self, ctx: Context) -> None:
        given, metadata = ctx.input, ctx.scratch["metadata"]
        fingerprint, project = given["fingerprint"], given["project"]
        await asyncio.to_thread(self._blobs.keep, ctx.operation.id, fingerprint, split=given["split"])
        await asyncio.to_thread(self._blobs.drop_staging, ctx.operation.id)
        image = Image(
            project=project,
            fingerprint=fingerprint,
            properties=({} if given.get("is_described") else metadata["properties"]) | given["properties"],
            public=given["public"],
            architecture=metadata["architecture"],
            filename=given["filename"],
            size_bytes=given["size"],
            split=given["split"],
            auto_update=given.get("auto_update", False),
            cached=given.get("cached", False),
            profiles=tuple(given.get("profiles", ("default",))),
            origin=given.get("origin", {}),
            created_at=given.get("created_at") or float(metadata["creation_date"]),
            expires_at=given.get("expires_at") or float(metadata["expiry_date"]),
            uploaded_at=time.time(),
            metadata=metadata,
        )
        key = keys.image(project, fingerprint)
        told = ctx.event("image-created", "images", fingerprint, type="container")
        ctx.txn.absent(key).put(key, image).emit(told)
        copy = ImageCopy(fingerprint, self._store.member, time.time())
        ctx.txn.put(keys.image_copy(fingerprint, self._store.member), copy)
        for name, description in _described(given["aliases"]).items():
            key = keys.alias(project, name)
            ctx.txn.absent(key).put(key, Alias(project, name, description, fingerprint))
            ctx.txn.emit(ctx.event("image-alias-created", "aliases", name, target=fingerprint))

    async def clean(self) -> None:
        """Remove what no record and no running operation needs. Call after the runner started."""
        for id in self._blobs.staged():
            if not self._runner.find_live(id):
                await asyncio.to_thread(self._blobs.drop_staging, id)
        if self._store.is_empty() and not self._runner.has_worked and not self._store.own_copies():
            # A state that was lost looks like this. What pools hold lies on these files: see recover.
            # One from which all was deleted has the operations that did it.
            await asyncio.to_thread(self._blobs.put_aside)
        await asyncio.to_thread(self._blobs.drop_aside, _KEPT_ASIDE_S)
        await self.sweep()

    async def sweep(self) -> None:
        """Remove files that nothing needs any more, for example after an image's last instance went."""
        for fingerprint in await asyncio.to_thread(self._blobs.fingerprints):
            await self.remove_unused(fingerprint)

    async def remove_unused(self, fingerprint: str) -> None:
        """Remove the files of an image that no project has and no running operation brings."""
        arriving = (self._runner.get(id).input["fingerprint"] for id in self._runner.live_of(KIND))
        if fingerprint in arriving or self._store.is_needed(fingerprint):
            return
        # Out of sight before anything else can run: the same image may arrive again at any time.
        id = str(uuid.uuid4())
        self._blobs.discard(fingerprint, id)
        await asyncio.to_thread(self._blobs.drop_staging, id)
        with contextlib.suppress(Unavailable):  # said later, see Copies.agree()
            await self._forget(fingerprint)


def _described(aliases: dict[str, str] | list[str]) -> dict[str, str]:
    """Return name to description, also of an operation that an older version accepted."""
    return aliases if isinstance(aliases, dict) else dict.fromkeys(aliases, "")


async def _tell(ctx: Context, how_far: str) -> None:
    await ctx.progress(convert_progress=f"Converting: {how_far}")
