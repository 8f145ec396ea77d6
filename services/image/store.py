"""The records this service writes, and the caches it answers from."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from itertools import chain
from typing import TypeVar

from core.errors import Invalid, NotFound, Unavailable
from core.names import is_fingerprint, shown
from core.records import Alias, Image, ImageCopy, Instance, Presence, Snapshot
from core.state import keys
from core.state.cache import Cache
from core.state.repository import Entry, entry_of
from core.state.store import Store

T = TypeVar("T")


class ImageStore:
    def __init__(self, store: Store, member: str = "") -> None:
        self.store = store
        self.member = member
        self.images = Cache(store, Image, keys.IMAGES)
        self.aliases = Cache(store, Alias, keys.ALIASES)
        self.instances = Cache(store, Instance, keys.INSTANCES)
        self.snapshots = Cache(store, Snapshot, keys.SNAPSHOTS)
        self.copies = Cache(store, ImageCopy, keys.IMAGE_COPIES)
        self._presences = Cache(store, Presence, keys.PRESENCE)
        self._used_at: dict[str, float] = {}
        self._held: dict[str, float] = {}
        self.instances.on_change(self._note_use)

    async def start(self) -> None:
        await self.images.start()
        await self.aliases.start()
        await self.instances.start()
        await self.snapshots.start()
        await self.copies.start()
        await self._presences.start()

    async def stop(self) -> None:
        await self.images.stop()
        await self.aliases.stop()
        await self.instances.stop()
        await self.snapshots.stop()
        await self.copies.stop()
        await self._presences.stop()

    async def image(self, project: str, prefix: str) -> Entry[Image]:
        """Return the image whose fingerprint begins with *prefix*. Raises: NotFound, Invalid."""
        found, digits = [], prefix.lower()
        if is_fingerprint(digits):
            found = self._matching(project, digits) or await self._just_stored(project, digits)
        if len(found) > 1:
            raise Invalid(
                "AMBIGUOUS", f"More than one image matches {prefix!r}; give more digits", about=prefix
            )
        if not found:
            # Clients ask for a fingerprint when there is no such alias, so what is missing may be either.
            raise NotFound(
                "NO_IMAGE",
                f"Image not found: there is no alias or fingerprint {shown(prefix)!r}",
                about=shown(prefix),
            )
        return found[0]

    def _matching(self, project: str, prefix: str) -> list[Entry[Image]]:
        entries = self.images.entries(keys.images(project))
        return [entry for entry in entries if entry.record.fingerprint.startswith(prefix)]

    def public_image(self, project: str, prefix: str) -> Entry[Image] | None:
        """Return the one public image whose fingerprint begins with *prefix*, as if there were no others."""
        found = self._matching(project, prefix) if is_fingerprint(prefix) else []
        public = [entry for entry in found if entry.record.public]
        return public[0] if len(public) == 1 else None

    async def just_stored(self, project: str) -> None:
        """See what other members stored a moment ago."""
        await self._just_stored(project, "")

    async def just_stored_image(self, project: str, fingerprint: str) -> Entry[Image] | None:
        """Return an image by its whole fingerprint, also when another member stored it a moment ago."""
        key = keys.image(project, fingerprint)
        if self.images.get(key) is None:
            await self._just_stored(project, fingerprint)
        return self.images.get(key)

    async def _just_stored(self, project: str, prefix: str) -> list[Entry[Image]]:
        """Ask the state itself: a client may have seen an import succeed before this cache was told."""
        with contextlib.suppress(Unavailable):
            for kv in (await self.store.list(keys.image(project, prefix))).kvs:
                self.images.apply(kv.key, entry_of(Image, kv).record, kv.revision)
        return self._matching(project, prefix)

    async def instance(self, project: str, name: str, snapshot: str = "") -> Instance:
        """Return an instance as it is now, or was at a snapshot. Raises: NotFound."""
        found = await self._now(self.instances, Instance, keys.instance(project, name))
        if found is None:
            raise NotFound("NO_INSTANCE", "Instance not found", about=shown(name))
        if not snapshot:
            return found
        taken = await self._now(self.snapshots, Snapshot, keys.snapshot(found.id, snapshot))
        if taken is None:
            raise NotFound("NO_INSTANCE", "Instance not found", about=shown(f"{name}/{snapshot}"))
        return taken.instance

    async def _now(self, cache: Cache[T], cls: type[T], key: str) -> T | None:
        """Ask the state itself for what is absent: a client may have seen it made before a cache was told."""
        entry = cache.get(key)
        if entry is None and (kv := await self.store.get(key)):
            entry = entry_of(cls, kv)
        return entry.record if entry else None

    def alias(self, project: str, name: str) -> Entry[Alias]:
        entry = self.aliases.get(keys.alias(project, name))
        if entry is None:
            raise NotFound("NO_ALIAS", f"Image alias not found: {shown(name)}", about=shown(name))
        return entry

    def has_alias(self, project: str, name: str) -> bool:
        return self.aliases.get(keys.alias(project, name)) is not None

    def aliases_of(self, project: str, fingerprint: str) -> list[Entry[Alias]]:
        return [e for e in self.aliases.entries(keys.aliases(project)) if e.record.target == fingerprint]

    def is_empty(self) -> bool:
        """Whether nothing at all is recorded of images and instances."""
        return not (self.images.entries() or self.instances.entries() or self.snapshots.entries())

    def is_needed(self, fingerprint: str, *, without: str = "") -> bool:
        """Whether this member keeps the files: a project has the image, or a root here lies on it.

        Or one elsewhere does, whose member would have to fetch them from here. *without*: a project that
        does not count.
        """
        records = (entry.record for entry in self.images.entries())
        has_record = any(r.fingerprint == fingerprint and r.project != without for r in records)
        if has_record or self._is_held(fingerprint):
            return True
        others = set(self._living_holders(fingerprint))
        return any(record.member not in others for record in self._lying_on(fingerprint))

    async def holders(self, fingerprint: str) -> list[str]:
        """Return the other members that have the files, those that live first."""
        with contextlib.suppress(Unavailable):
            # A client may have seen an import succeed elsewhere before this cache was told.
            for kv in (await self.store.list(keys.image_copies(fingerprint))).kvs:
                self.copies.apply(kv.key, entry_of(ImageCopy, kv).record, kv.revision)
        others = [e.record.member for e in self.copies.below(keys.image_copies(fingerprint))]
        living = self._living_holders(fingerprint)
        return [*living, *(m for m in others if m not in living and m != self.member)]

    def _living_holders(self, fingerprint: str) -> list[str]:
        others = [entry.record.member for entry in self.copies.below(keys.image_copies(fingerprint))]
        return [m for m in others if m != self.member and self._presences.get(keys.presence(m, "image"))]

    def has_copy(self, fingerprint: str) -> bool:
        """Whether it is written down that this member has the files."""
        return self.copies.get(keys.image_copy(fingerprint, self.member)) is not None

    def own_copies(self) -> set[str]:
        """Return the fingerprints of what is written down of this member."""
        return {e.record.fingerprint for e in self.copies.entries() if e.record.member == self.member}

    def hold(self, fingerprint: str, until: float) -> None:
        """Count a base as used until then, before the instance is there that will lie on it."""
        self._held[fingerprint] = max(until, self._held.get(fingerprint, 0.0))

    def is_base(self, fingerprint: str) -> bool:
        """Whether a root file system lies on it, or soon will."""
        return self._is_held(fingerprint) or self.has_instances(fingerprint)

    def _is_held(self, fingerprint: str) -> bool:
        return self._held.get(fingerprint, 0.0) > time.time()

    def any_image(self, fingerprint: str) -> Image | None:
        """Return the record of an image in whichever project has it."""
        records = (entry.record for entry in self.images.entries())
        return next((record for record in records if record.fingerprint == fingerprint), None)

    def has_instances(self, fingerprint: str) -> bool:
        """Whether the root file system of an instance or of a snapshot lies on it, on whichever member."""
        return any(True for _ in self._lying_on(fingerprint))

    def _lying_on(self, fingerprint: str) -> Iterator[Instance]:
        snapshots = (e.record.instance for e in self.snapshots.entries())
        instances = (e.record for e in self.instances.entries())
        return (record for record in chain(instances, snapshots) if record.image == fingerprint)

    def last_used_at(self, image: Image) -> float:
        """Return when an instance was last made of it, in whichever project; 0.0 for never.

        Seen from the instances themselves, so that a launch needs no write here; what the record
        holds is older by up to a sweep and outlives them.
        """
        seen = self._used_at.get(image.fingerprint, 0.0)
        # What was made of the same bytes before they were imported (again) is not of this image.
        return max(image.last_used_at, seen if seen >= image.uploaded_at else 0.0)

    def _note_use(self, key: str, entry: Entry[Instance] | None) -> None:
        if entry and (fingerprint := entry.record.image):
            latest = max(self._used_at.get(fingerprint, 0.0), entry.record.created_at)
            self._used_at[fingerprint] = latest
