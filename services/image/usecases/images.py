"""Images and aliases once they are here: change, delete, export, prepare."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path

from core.errors import AlreadyExists, Internal, Invalid, NotFound, Stale, Unavailable
from core.events import Event
from core.names import alias_name
from core.operations.operation import SUCCEEDED, Context, Operation, Step, Story
from core.operations.runner import Runner
from core.records import Alias, Image
from core.rpc.identity import current_identity
from core.state import keys
from core.state.repository import Entry
from core.state.store import Txn
from services.image.formats import magic
from services.image.ports import Blobs
from services.image.store import ImageStore
from services.image.usecases.imports import nothing

_DELETE = "image.delete"


def event(action: str, kind: str, project: str, name: str, **context: str) -> Event:
    return Event(action, kind, project, name, current_identity().as_dict(), context)


@dataclass(frozen=True)
class Prepared:
    """A squashfs, the folder in it that is the root, and metadata.yaml."""

    squashfs: Path
    rootfs_dir: str
    metadata: dict[str, object]


class Images:
    def __init__(
        self,
        store: ImageStore,
        blobs: Blobs,
        runner: Runner,
        remove_unused: Callable[[str], Awaitable[None]],
        ensure: Callable[[str], Awaitable[None]] = nothing,
    ) -> None:
        """*ensure*: fetches the files of an image from another member, where they are not here."""
        self._remove_unused = remove_unused
        self.ensure = ensure
        self._store = store
        self._blobs = blobs
        self._runner = runner
        runner.register(Story(_DELETE, "Deleting image", (Step("remove_blobs", self._remove_blobs),)))

    async def update(self, project: str, wanted: Image, *, expected_revision: int) -> Entry[Image]:
        entry = await self._store.image(project, wanted.fingerprint)
        entry.expect(expected_revision, "image", wanted.fingerprint)
        new = replace(
            entry.record,
            properties=wanted.properties,
            public=wanted.public,
            auto_update=wanted.auto_update,
            profiles=wanted.profiles,
            expires_at=wanted.expires_at or entry.record.expires_at,
        )
        told = Txn().emit(event("image-updated", "images", project, new.fingerprint))
        return await self._save(new, entry.revision, told)

    async def _save(self, image: Image, revision: int, txn: Txn) -> Entry[Image]:
        key = keys.image(image.project, image.fingerprint)
        new_revision = await self._store.store.commit(txn.unchanged(key, revision).put(key, image))
        self._store.images.apply(key, image, new_revision)
        return Entry(image, new_revision)

    async def record_uses(self) -> None:
        """Write down what was learnt of last uses, for when the instances are gone. Repeatable."""
        for entry in self._store.images.entries():
            used_at = self._store.last_used_at(entry.record)
            if used_at > entry.record.last_used_at:
                # Whoever changes the image meanwhile wins; the next sweep tries again.
                with contextlib.suppress(Stale, Unavailable):
                    await self._save(replace(entry.record, last_used_at=used_at), entry.revision, Txn())

    async def delete(self, project: str, prefix: str, *, asked_in: str = "") -> Operation:
        """The record and its aliases go in the accepting transaction, the blobs after it.

        asked_in: the project whose clients hear of the operation, where that is another one.
        """
        image = (await self._store.image(project, prefix)).record
        key = keys.image(project, image.fingerprint)
        aliases = [
            keys.alias(project, e.record.name) for e in self._store.aliases_of(project, image.fingerprint)
        ]
        txn = Txn().exists(key).delete(key).emit(event("image-deleted", "images", project, image.fingerprint))
        for alias in aliases:
            txn.delete(alias)
        copy = keys.image_copy(image.fingerprint, self._store.member)
        is_last = not self._store.is_needed(image.fingerprint, without=project)
        if is_last and self._store.has_copy(image.fingerprint):
            txn.delete(copy)
        operation = await self._runner.accept(
            _DELETE, project=asked_in or project, input={"fingerprint": image.fingerprint}, txn=txn
        )
        revision = self._runner.revisions[operation.id]
        self._store.images.apply(key, None, revision)
        for alias in aliases:
            self._store.aliases.apply(alias, None, revision)
        if copy in txn.deletes:
            self._store.copies.apply(copy, None, revision)
        return operation

    async def take_back(self, id: str, project: str) -> None:
        """Remove the image that operation *id* made in *project*, if it did. Repeatable."""
        done = self._runner.find(id)
        if done and not done.is_final:
            done = await self._runner.wait(done.id)
        if done and done.state == SUCCEEDED:
            with contextlib.suppress(NotFound):
                deletion = await self.delete(project, str(done.metadata["fingerprint"]))
                await self._runner.wait(deletion.id)

    async def _remove_blobs(self, ctx: Context) -> None:
        await self._remove_unused(ctx.input["fingerprint"])

    def files(self, image: Image) -> list[tuple[str, Path, str]]:
        """Return (part, path, suggested file name) of every file of an image; call ensure() before."""
        parts = ("metadata", "rootfs") if image.split else ("unified",)
        paths = {part: self._blobs.part(image.fingerprint, part) for part in parts}
        return [(part, path, name_of(path, image.fingerprint, part)) for part, path in paths.items()]

    async def prepared(self, project: str, fingerprint: str) -> Prepared:
        """Return what instances are made from; also for an image deleted while instances lie on it.

        Where the files are on another member only, they are fetched. Raises: NotFound, Unavailable, Internal.
        """
        entry = await self._store.just_stored_image(project, fingerprint)
        if entry is None and not self._store.is_base(fingerprint):
            raise NotFound("NO_IMAGE", f"Image not found: {fingerprint[:64]}", about=fingerprint[:64])
        image = entry.record if entry else self._store.any_image(fingerprint)
        await self.ensure(fingerprint)
        path = self._blobs.squashfs(fingerprint)
        if not path.exists():
            raise Internal("IMAGE_BROKEN", f"The files of image {fingerprint[:12]} are gone; import it again")
        split = image.split if image else self._blobs.part(fingerprint, "rootfs").exists()
        return Prepared(path, "" if split else "rootfs", image.metadata if image else {})

    async def create_alias(self, alias: Alias) -> Entry[Alias]:
        alias_name(alias.name)
        if self._store.has_alias(alias.project, alias.name):
            raise _alias_taken(alias.name)
        target = (await self._store.image(alias.project, alias.target)).record.fingerprint
        record, key = replace(alias, target=target), keys.alias(alias.project, alias.name)
        txn = Txn().absent(key).exists(keys.image(alias.project, target)).put(key, record)
        try:
            return await self._save_alias(txn, "image-alias-created", record, target=target)
        except Stale as exc:
            raise _alias_taken(alias.name) from exc

    async def update_alias(self, alias: Alias, *, expected_revision: int) -> Entry[Alias]:
        entry = self._store.alias(alias.project, alias.name)
        entry.expect(expected_revision, "alias", alias.name)
        image = await self._store.image(alias.project, alias.target or entry.record.target)
        target = image.record.fingerprint
        record, key = replace(alias, target=target), keys.alias(alias.project, alias.name)
        txn = Txn().unchanged(key, entry.revision).put(key, record)
        return await self._save_alias(txn, "image-alias-updated", record, target=target)

    async def rename_alias(self, project: str, name: str, new_name: str) -> Entry[Alias]:
        alias_name(new_name)
        entry = self._store.alias(project, name)
        if new_name == name:
            raise Invalid("SAME_NAME", "The new name is the old one", about=name)
        record = replace(entry.record, name=new_name)
        old_key, key = keys.alias(project, name), keys.alias(project, new_name)
        txn = Txn().unchanged(old_key, entry.revision).absent(key).delete(old_key).put(key, record)
        try:
            saved = await self._save_alias(txn, "image-alias-renamed", record, old_name=name)
        except Stale as exc:
            raise _alias_taken(new_name) from exc
        self._store.aliases.apply(old_key, None, saved.revision)
        return saved

    async def delete_alias(self, project: str, name: str) -> None:
        key = keys.alias(project, name)
        self._store.alias(project, name)
        txn = Txn().exists(key).delete(key).emit(event("image-alias-deleted", "aliases", project, name))
        self._store.aliases.apply(key, None, await self._store.store.commit(txn))

    async def _save_alias(self, txn: Txn, action: str, record: Alias, **context: str) -> Entry[Alias]:
        told = event(action, "aliases", record.project, record.name, **context)
        revision = await self._store.store.commit(txn.emit(told))
        self._store.aliases.apply(keys.alias(record.project, record.name), record, revision)
        return Entry(record, revision)


def _alias_taken(name: str) -> AlreadyExists:
    return AlreadyExists("EXISTS", f'Alias "{name}" already exists', about=name)


def name_of(path: Path, fingerprint: str, part: str) -> str:
    """Return how the file of a part is called where it is given away. Raises: FileNotFoundError."""
    stem = f"meta-{fingerprint}" if part == "metadata" else fingerprint
    with path.open("rb") as file:
        return stem + magic.extension(file.read(512))
