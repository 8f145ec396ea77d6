"""What others may have of the images here: everything, what is public, or what a secret opens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

from core.errors import Internal, NotFound, Unavailable
from core.names import is_fingerprint
from core.records import Image
from core.state import keys
from core.state.repository import Entry
from core.state.store import Txn
from services.image.ports import Blobs, CopyFile
from services.image.store import ImageStore
from services.image.usecases.images import Images, event
from services.image.usecases.secrets import Secrets

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Reader:
    """Who reads. A guest has what is public, and what the secret opens."""

    is_guest: bool = False
    secret: str = ""


@dataclass(frozen=True)
class File:
    """One file of an image; size in bytes."""

    part: str
    name: str
    size: int
    sha256: str = ""


class Sharing:
    def __init__(
        self,
        store: ImageStore,
        images: Images,
        blobs: Blobs,
        secrets: Secrets,
        offered: Callable[[str], Awaitable[list[CopyFile]]],
    ) -> None:
        """*offered*: returns the files of an image with their hashes, from whichever member."""
        self._offered = offered
        self._store = store
        self._images = images
        self._blobs = blobs
        self._secrets = secrets
        # What is in an image never changes; kept for those that are public.
        self._files: dict[str, list[File]] = {}
        self._hashing = asyncio.Lock()

    async def image(self, project: str, prefix: str, reader: Reader) -> Entry[Image]:
        """Raises: NotFound, to guests the same for what is private and what is not there; Invalid."""
        if not reader.is_guest:
            return await self._store.image(project, prefix)
        if found := self._store.public_image(project, prefix):
            return found
        if reader.secret and is_fingerprint(prefix):
            entry = self._store.images.get(keys.image(project, prefix))
            if entry and self._secrets.opens(project, prefix, reader.secret):
                return entry
        raise NotFound("NO_IMAGE", "Image not found")

    async def here(self, image: Image) -> None:
        """Fetch its files from another member if need be. Raises: Internal, Unavailable."""
        await self._images.ensure(image.fingerprint)

    async def files(self, image: Image) -> list[File]:
        """Fetch them from another member if need be. Raises: Internal when they are gone; Unavailable."""
        await self.here(image)
        return [File(part, name, size) for part, _, name, size in await self._on_disk(image)]

    async def _on_disk(self, image: Image) -> list[tuple[str, Path, str, int]]:
        def look() -> list[tuple[str, Path, str, int]]:
            found = self._images.files(image)
            return [(part, path, name, path.stat().st_size) for part, path, name in found]

        with whole(image):
            return await asyncio.to_thread(look)

    async def offers(self, project: str) -> list[tuple[Entry[Image], list[File]]]:
        """Return the public images with the hash of each file, which takes a while when it is new."""
        entries = [e for e in self._store.images.entries(keys.images(project)) if e.record.public]
        found = []
        for entry in sorted(entries, key=lambda e: e.record.uploaded_at):
            with suppress(Internal, Unavailable):
                found.append((entry, await self._hashed(entry.record)))
        public = {e.record.fingerprint for e in self._store.images.entries() if e.record.public}
        self._files = {name: files for name, files in self._files.items() if name in public}
        return found

    async def _hashed(self, image: Image) -> list[File]:
        async with self._hashing:
            if image.fingerprint not in self._files:
                files = await self._offered(image.fingerprint)
                self._files[image.fingerprint] = [File(f.part, f.name, f.size, f.sha256) for f in files]
            return self._files[image.fingerprint]

    async def read(
        self, image: Image, part: str, reader: Reader, *, offset: int, length: int
    ) -> AsyncGenerator[bytes, None]:
        """Yield that piece of a file; what is deleted meanwhile is still sent to its end.

        Raises: NotFound, Internal.
        """
        await self.here(image)
        async with self.opened(image, reader):
            with whole(image):
                file = self.path(image, part).open("rb")
            with file:
                file.seek(offset)
                while length > 0 and (chunk := await asyncio.to_thread(file.read, min(_CHUNK, length))):
                    length -= len(chunk)
                    yield chunk

    def opened(self, image: Image, reader: Reader) -> AbstractAsyncContextManager[None]:
        """Use up the reader's secret, if that is what opens the image. Raises: NotFound."""
        if reader.is_guest and not image.public:
            return self._secrets.using(image.project, image.fingerprint, reader.secret)
        return nullcontext()

    def path(self, image: Image, part: str) -> Path:
        return self._blobs.part(image.fingerprint, part)

    async def note_retrieval(self, project: str, fingerprint: str) -> None:
        """Tell those who listen that an image was given away."""
        await self._store.store.commit(Txn().emit(event("image-retrieved", "images", project, fingerprint)))


@contextmanager
def whole(image: Image) -> Iterator[None]:
    """Raises: Internal when a file of the image is missing in the block."""
    try:
        yield
    except FileNotFoundError:
        words = f"The files of image {image.fingerprint[:12]} are gone; import it again"
        raise Internal("IMAGE_BROKEN", words) from None
