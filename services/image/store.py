"""The records this service writes, and the caches it answers from."""

from __future__ import annotations

from core.errors import Invalid, NotFound
from core.names import fingerprint_prefix
from core.records import Alias, Image, Instance
from core.state import keys
from core.state.cache import Cache
from core.state.repository import Entry
from core.state.store import Store


class ImageStore:
    def __init__(self, store: Store) -> None:
        self.store = store
        self.images = Cache(store, Image, keys.IMAGES)
        self.aliases = Cache(store, Alias, keys.ALIASES)
        self.instances = Cache(store, Instance, keys.INSTANCES)

    async def start(self) -> None:
        await self.images.start()
        await self.aliases.start()
        await self.instances.start()

    async def stop(self) -> None:
        await self.images.stop()
        await self.aliases.stop()
        await self.instances.stop()

    def image(self, project: str, prefix: str) -> Entry[Image]:
        """Return the image whose fingerprint begins with *prefix*. Raises: NotFound, Invalid."""
        fingerprint_prefix(prefix)
        found = [
            e for e in self.images.entries(keys.images(project)) if e.record.fingerprint.startswith(prefix)
        ]
        if len(found) > 1:
            raise Invalid("AMBIGUOUS", "More than one image matches; give more digits", about=prefix)
        if not found:
            raise NotFound("NO_IMAGE", "Image not found", about=prefix)
        return found[0]

    def alias(self, project: str, name: str) -> Entry[Alias]:
        entry = self.aliases.get(keys.alias(project, name))
        if entry is None:
            raise NotFound("NO_ALIAS", "Image alias not found", about=name)
        return entry

    def aliases_of(self, project: str, fingerprint: str) -> list[Entry[Alias]]:
        return [e for e in self.aliases.entries(keys.aliases(project)) if e.record.target == fingerprint]

    def is_used(self, fingerprint: str) -> bool:
        """Whether a project has the image, or an instance's root file system lies on it."""
        return self.any_image(fingerprint) is not None or self.has_instances(fingerprint)

    def any_image(self, fingerprint: str) -> Image | None:
        """Return the record of an image in whichever project has it."""
        records = (entry.record for entry in self.images.entries())
        return next((record for record in records if record.fingerprint == fingerprint), None)

    def has_instances(self, fingerprint: str) -> bool:
        return any(e.record.image == fingerprint for e in self.instances.entries())
