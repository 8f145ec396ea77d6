"""Files of images on many members: who has them, and fetching them from there instead of from outside.

Each member says in the state what it has (ImageCopy). Whoever needs files that are not here asks one that
has them, has what comes looked through as any upload, and believes it by the fingerprint alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from pathlib import Path
from weakref import WeakValueDictionary

from core.errors import Internal, Invalid, NotFound, PodiumError, Unavailable
from core.logs import get_logger
from core.records import ImageCopy
from core.state import keys
from core.state.store import Txn
from core.tasks import cancelled
from services.image.ports import SQUASHFS, Blobs, Converter, CopyFile, Peers
from services.image.store import ImageStore
from services.image.usecases.images import name_of
from services.image.usecases.receive import MADE, Receiver

log = get_logger(__name__)
_CHUNK = 1 << 20
_CONVERT_S = 900.0
_TRIES = 3
_WHOLE = ("unified",), ("metadata", "rootfs")


class Copies:
    """Which files of images this member has, and how it comes by those that it has not."""

    def __init__(self, store: ImageStore, blobs: Blobs, converter: Converter, peers: Peers) -> None:
        self._store = store
        self._blobs = blobs
        self._converter = converter
        self._peers = peers
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    # --- what this member has --------------------------------------------------------------------

    def parts_here(self, fingerprint: str) -> tuple[str, ...]:
        """Return which files are here: those of an image, or the squashfs of a base; () for none."""
        for parts in _WHOLE:
            if all(self._blobs.part(fingerprint, part).exists() for part in parts):
                return parts
        return (SQUASHFS,) if self._blobs.squashfs(fingerprint).exists() else ()

    def path(self, fingerprint: str, part: str) -> Path:
        return self._blobs.squashfs(fingerprint) if part == SQUASHFS else self._blobs.part(fingerprint, part)

    async def describe(self, fingerprint: str, *, hashed: bool = False) -> list[CopyFile]:
        """Return the files that are here. Slow the first time where hashes are wanted. Raises: NotFound."""

        def look() -> list[CopyFile]:
            return [self._file(fingerprint, part, hashed) for part in self.parts_here(fingerprint)]

        with contextlib.suppress(FileNotFoundError):
            if found := await asyncio.to_thread(look):
                return found
        raise NotFound("NO_COPY", "This member has no files of the image", about=fingerprint[:64])

    def _file(self, fingerprint: str, part: str, hashed: bool) -> CopyFile:
        path = self.path(fingerprint, part)
        name = name_of(path, fingerprint, part)
        # Nothing but this says whether a base came as it was sent.
        is_hashed = hashed or part == SQUASHFS
        sha256 = self._blobs.sha256(fingerprint, part) if is_hashed else ""
        return CopyFile(part, name, path.stat().st_size, sha256)

    async def read(self, fingerprint: str, part: str, offset: int) -> AsyncGenerator[bytes, None]:
        """Yield a file from *offset* on; what is deleted meanwhile is still sent. Raises: NotFound."""
        try:
            file = self.path(fingerprint, part).open("rb")
        except FileNotFoundError:
            raise NotFound(
                "NO_COPY", "This member has no files of the image", about=fingerprint[:64]
            ) from None
        with file:
            file.seek(offset)
            while chunk := await asyncio.to_thread(file.read, _CHUNK):
                yield chunk

    async def parts(self, fingerprint: str) -> AsyncGenerator[tuple[str, bytes], None]:
        """Yield the files of an image as an upload brings them, wherever in the cluster they are."""
        await self.ensure(fingerprint)
        for part in self.parts_here(fingerprint):
            async with aclosing(self.read(fingerprint, part, 0)) as chunks:
                async for chunk in chunks:
                    yield part, chunk

    # --- what others have ------------------------------------------------------------------------

    async def offered(self, fingerprint: str) -> list[CopyFile]:
        """Return the files of an image with their hashes, from whoever has them; nothing is fetched.

        Raises: Unavailable, Internal.
        """
        with contextlib.suppress(NotFound):
            return await self.describe(fingerprint, hashed=True)

        async def ask(member: str) -> list[CopyFile]:
            return await self._peers.describe(member, fingerprint, hashed=True)

        return await self._from_any(fingerprint, ask)

    async def ensure(self, fingerprint: str) -> None:
        """Return when the files are here; fetch them from another member if need be.

        Raises: Unavailable, when those who have them do not answer; Internal, when nobody has them.
        """
        if self._is_here(fingerprint):
            return
        async with self._locks.setdefault(fingerprint, asyncio.Lock()):
            if not self._is_here(fingerprint):
                await self._from_any(fingerprint, lambda member: self._fetch(fingerprint, member))

    def _is_here(self, fingerprint: str) -> bool:
        if not self._blobs.squashfs(fingerprint).exists():
            self._blobs.bring_back(fingerprint)
        return self._blobs.squashfs(fingerprint).exists() and bool(self.parts_here(fingerprint))

    async def _from_any(
        self, fingerprint: str, ask: Callable[[str], Awaitable[list[CopyFile]]]
    ) -> list[CopyFile]:
        """Return what the first of those who have the image answers. Raises: Unavailable, Internal."""
        away = ""
        for member in await self._store.holders(fingerprint):
            try:
                return await ask(member)
            except (NotFound, Invalid, Internal) as exc:
                log.warning("image_copy_unusable", fingerprint=fingerprint, member=member, error=str(exc))
            except Unavailable as exc:
                log.warning("image_copy_away", fingerprint=fingerprint, member=member, error=str(exc))
                away = away or member
        if away:
            words = f"The files of image {fingerprint[:12]} lie on member {away!r}, which does not answer"
            raise Unavailable("IMAGE_AWAY", words, about=fingerprint[:64])
        words = f"The files of image {fingerprint[:12]} are gone; import it again"
        raise Internal("IMAGE_BROKEN", words)

    async def _fetch(self, fingerprint: str, member: str) -> list[CopyFile]:
        """Take a member's files as an upload, and put them where the fingerprint says."""
        files = await self._peers.describe(member, fingerprint, hashed=False)
        id, begun = str(uuid.uuid4()), time.monotonic()
        try:
            if [file.part for file in files] == [SQUASHFS]:
                await self._take_base(id, fingerprint, member, files[0])
            else:
                await self._take_image(id, fingerprint, member, files)
        finally:
            # gRPC cancels a call more than once; the files must go all the same.
            await asyncio.shield(asyncio.to_thread(self._blobs.drop_staging, id))
        await self.note(fingerprint)
        took = round(time.monotonic() - begun, 3)
        log.info("image_copy_fetched", fingerprint=fingerprint, member=member, took_s=took)
        return files

    async def _take_image(self, id: str, fingerprint: str, member: str, files: Sequence[CopyFile]) -> None:
        folder = self._blobs.staging(id)
        received = await Receiver(folder, self._converter).receive(self._arriving(member, fingerprint, files))
        head_start, is_made = received.head_start, False
        try:
            _check(fingerprint, received.fingerprint, member)
            is_made = head_start is not None and await head_start.done(_CONVERT_S)
        finally:
            if head_start:
                await head_start.drop()
        if not is_made:
            await self._converter.convert(folder / ("rootfs" if received.split else "unified"), folder / MADE)
        await asyncio.to_thread(self._blobs.keep, id, fingerprint, split=received.split)

    async def _take_base(self, id: str, fingerprint: str, member: str, file: CopyFile) -> None:
        """Take a squashfs that a member made: nothing but its hash tells whether it came whole."""
        target = self._blobs.staging(id) / MADE
        with target.open("wb") as out:
            async with aclosing(self._arriving(member, fingerprint, [file])) as chunks:
                async for _, chunk in chunks:
                    await asyncio.to_thread(out.write, chunk)
        _check(file.sha256, await asyncio.to_thread(self._blobs.hash_of, target), member)
        await asyncio.to_thread(self._blobs.keep_base, id, fingerprint)

    async def _arriving(
        self, member: str, fingerprint: str, files: Sequence[CopyFile]
    ) -> AsyncGenerator[tuple[str, bytes], None]:
        """Yield the bytes of all files; what breaks off is taken up where it broke, a few times."""
        for file in files:
            got, tries = 0, 0
            while got < file.size:
                before = got
                try:
                    async with aclosing(self._peers.read(member, fingerprint, file.part, got)) as chunks:
                        async for chunk in chunks:
                            got += len(chunk)
                            yield file.part, chunk
                    tries = _TRIES
                except Unavailable:
                    tries = 0 if got > before else tries + 1
                    if tries >= _TRIES:
                        raise
                    await asyncio.sleep(0.2 * (tries + 1))
                if tries >= _TRIES and got < file.size:
                    raise Invalid("TOO_SHORT", f"Member {member!r} sent {got} of {file.size} bytes")

    # --- what is written down --------------------------------------------------------------------

    async def note(self, fingerprint: str) -> None:
        """Write down that this member has the files. Raises: Unavailable."""
        key = keys.image_copy(fingerprint, self._store.member)
        record = ImageCopy(fingerprint, self._store.member, time.time())
        self._store.copies.apply(key, record, await self._store.store.commit(Txn().put(key, record)))

    async def forget(self, fingerprint: str) -> None:
        """Write down that this member has them no more; free where nothing says so. Raises: Unavailable."""
        key = keys.image_copy(fingerprint, self._store.member)
        if self._store.copies.get(key):
            self._store.copies.apply(key, None, await self._store.store.commit(Txn().delete(key)))

    async def agree(self) -> None:
        """Make what is written of this member say what lies on its disk. Repeatable."""
        here = await asyncio.to_thread(self._blobs.fingerprints)
        said = self._store.own_copies()
        with contextlib.suppress(Unavailable):
            for fingerprint in here - said:
                if self._store.is_needed(fingerprint):
                    await self.note(fingerprint)
            for fingerprint in said - here:
                if not self._blobs.squashfs(fingerprint).exists():
                    await self.forget(fingerprint)


def _check(wanted: str, got: str, member: str) -> None:
    if wanted != got:
        raise Invalid("BAD_HASH", f"What member {member!r} sent of the image has another hash")


class Follower:
    """Removes files of images that another member deleted, a moment later. Part of a service."""

    def __init__(self, store: ImageStore, remove_unused: Callable[[str], Awaitable[None]]) -> None:
        self._store = store
        self._remove_unused = remove_unused
        self._deleted: asyncio.Queue[str] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._store.images.on_change(
            lambda key, entry: None if entry else self._deleted.put_nowait(key.rsplit("/", 1)[-1])
        )
        # Owned by this follower until stop().
        self._task = asyncio.create_task(self._follow(), name="deleted images")

    async def stop(self) -> None:
        await cancelled(self._task)

    async def _follow(self) -> None:
        while True:
            fingerprint = await self._deleted.get()
            # Where the state was lost nothing says any more that the files are here; then they stay.
            if self._store.has_copy(fingerprint):
                with contextlib.suppress(PodiumError, OSError):
                    await self._remove_unused(fingerprint)
