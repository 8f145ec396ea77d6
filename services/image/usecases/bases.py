"""Archives of instances become bases: received, converted in the same pass as images, and kept while needed.

Who uploaded gets a ticket, which the runtime redeems. So what an archive says of its instance goes from
this service to the runtime, and no caller can name a base that it did not bring.
"""

from __future__ import annotations

import asyncio
import secrets
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from core.errors import Invalid, NotFound
from services.image.domain import backupindex
from services.image.domain.backupindex import Index
from services.image.formats import magic
from services.image.ports import Blobs, Converter
from services.image.store import ImageStore
from services.image.usecases.receive import MADE, Receiver
from services.image.usecases.rooms import Count, Rooms

_KEPT_S = 600.0
_CONVERT_S = 900.0


@dataclass(frozen=True)
class Base:
    """What was received for *project*."""

    project: str
    fingerprint: str
    index: Index
    until: float


class Bases:
    def __init__(self, store: ImageStore, blobs: Blobs, converter: Converter, rooms: Rooms) -> None:
        self._rooms = rooms
        self._store = store
        self._blobs = blobs
        self._converter = converter
        self._received: dict[str, Base] = {}

    async def receive(self, project: str, chunks: AsyncIterator[bytes]) -> tuple[str, Index]:
        """Read an archive to its end; return a ticket for it and what it says.

        Raises: Invalid, LimitReached.
        """
        self._forget_old()
        id = str(uuid.uuid4())
        try:
            async with self._rooms.counted(project) as count:
                fingerprint = await self._receive(id, chunks, count)
            index = await self._index(self._made(id, fingerprint))
            self._store.hold(fingerprint, time.time() + _KEPT_S)
            await asyncio.to_thread(self._blobs.keep_base, id, fingerprint)
        except Invalid as exc:
            raise Invalid(exc.reason, exc.message.replace("The image", "The backup")) from exc
        finally:
            # gRPC cancels a call more than once; the files must go all the same.
            await asyncio.shield(asyncio.to_thread(self._blobs.drop_staging, id))
        ticket = secrets.token_urlsafe(24)
        self._received[ticket] = Base(project, fingerprint, index, time.time() + _KEPT_S)
        return ticket, index

    def take(self, project: str, ticket: str) -> Base:
        """Return what was received. Raises: NotFound."""
        self._forget_old()
        base = self._received.get(ticket)
        if base is None or base.project != project:
            raise NotFound("NO_BACKUP", "What was uploaded is no longer kept; send it again")
        return base

    def _forget_old(self) -> None:
        now = time.time()
        self._received = {ticket: base for ticket, base in self._received.items() if base.until > now}

    async def _receive(self, id: str, chunks: AsyncIterator[bytes], count: Count) -> str:
        """Return the digest of the archive, whose squashfs lies in the staging folder or in its place."""
        folder = self._blobs.staging(id)
        received = await Receiver(folder, self._converter, count).receive(_checked(chunks))
        head_start, is_known = received.head_start, self._blobs.squashfs(received.fingerprint).exists()
        try:
            is_made = not is_known and head_start is not None and await head_start.done(_CONVERT_S)
        finally:
            if head_start:
                await head_start.drop()
        if is_known:
            (folder / MADE).unlink(missing_ok=True)
        elif not is_made:
            await self._converter.convert(folder / "unified", folder / MADE)
        return received.fingerprint

    def _made(self, id: str, fingerprint: str) -> Path:
        made = self._blobs.staging(id) / MADE
        return made if made.exists() else self._blobs.squashfs(fingerprint)

    async def _index(self, squashfs: Path) -> Index:
        try:
            text = await self._converter.read(squashfs, backupindex.PATH, backupindex.MAX_BYTES)
        except Invalid as exc:
            raise Invalid("NO_INDEX", f"Backup is missing at {backupindex.PATH!r}") from exc
        index = await asyncio.to_thread(backupindex.parse, text)
        for entry in (index.instance, *index.snapshots):
            if not await self._converter.is_directory(squashfs, entry.base_dir):
                raise Invalid("NO_ROOTFS", f"The backup has no folder {entry.base_dir}")
        return index


async def _checked(chunks: AsyncIterator[bytes]) -> AsyncIterator[tuple[str, bytes]]:
    is_first = True
    async for chunk in chunks:
        if is_first and magic.kind_of(chunk) in ("", "squashfs"):
            raise Invalid("NO_ARCHIVE", "Unsupported compression")
        is_first = False
        yield "unified", chunk
