"""An image of another server is replaced by what its alias names there now: all of it or nothing.

Instances lie on the old one's files, which stay for as long as any does.
"""

from __future__ import annotations

from dataclasses import replace

from core.errors import NotFound
from core.operations.operation import Context, Operation, Step, Story
from core.operations.runner import Runner
from core.records import Image
from core.state import keys
from core.state.repository import Entry
from services.image.ports import RemoteSource
from services.image.store import ImageStore
from services.image.usecases.downloads import Downloads, Wanted, source_of
from services.image.usecases.images import Images

KIND = "image.refresh"


class Refresh:
    def __init__(self, store: ImageStore, downloads: Downloads, images: Images, runner: Runner) -> None:
        self._store = store
        self._downloads = downloads
        self._images = images
        self._runner = runner
        steps = (Step("fetch", self._fetch, self._take_back), Step("replace", self._replace))
        runner.register(Story(KIND, "Refreshing image", steps))

    async def accept(self, project: str, prefix: str, *, id: str = "", asked_in: str = "") -> Operation:
        """Accept a refresh; asked_in: the project whose clients hear of it, where that is another one.

        Raises: NotFound, Stale when *id* is another operation's."""
        image = (await self._store.image(project, prefix)).record
        return await self._runner.accept(
            KIND,
            id=id,
            project=asked_in or project,
            input={"project": project, "fingerprint": image.fingerprint},
            metadata={"fingerprint": image.fingerprint},
        )

    def _old(self, ctx: Context) -> Entry[Image]:
        project, fingerprint = ctx.input["project"], ctx.input["fingerprint"]
        entry = self._store.images.get(keys.image(project, fingerprint))
        if entry is None:
            raise NotFound("NO_IMAGE", "Image not found", about=fingerprint)
        return entry

    async def _fetch(self, ctx: Context) -> None:
        old = self._old(ctx).record
        source = source_of(old.origin)
        if source is None:
            raise _no_source(old)
        ctx.scratch["new"] = await self._downloads.fetch(ctx, _wanted(old, source))

    async def _take_back(self, ctx: Context) -> None:
        await self._images.take_back(ctx.operation.child_id, ctx.input["project"])

    async def _replace(self, ctx: Context) -> None:
        """Aliases, choices and last use go to the new one, in the transaction that removes the old one."""
        old, project, fingerprint = self._old(ctx), ctx.input["project"], ctx.scratch["new"]
        ctx.result(refreshed=fingerprint != old.record.fingerprint, fingerprint=fingerprint)
        if fingerprint == old.record.fingerprint:
            return
        new = await self._store.image(project, fingerprint)
        key = keys.image(project, fingerprint)
        record = replace(
            new.record,
            auto_update=old.record.auto_update or new.record.auto_update,
            cached=old.record.cached and new.record.cached,
            last_used_at=max(self._store.last_used_at(old.record), new.record.last_used_at),
        )
        old_key = keys.image(project, old.record.fingerprint)
        ctx.txn.unchanged(key, new.revision).put(key, record)
        ctx.txn.unchanged(old_key, old.revision).delete(old_key)
        ctx.txn.emit(ctx.event("image-refreshed", "images", fingerprint))
        ctx.txn.emit(ctx.event("image-deleted", "images", old.record.fingerprint))
        for alias in self._store.aliases_of(project, old.record.fingerprint):
            alias_key = keys.alias(project, alias.record.name)
            moved = replace(alias.record, target=fingerprint)
            ctx.txn.unchanged(alias_key, alias.revision).put(alias_key, moved)
            ctx.txn.emit(ctx.event("image-alias-updated", "aliases", alias.record.name))


def _wanted(old: Image, source: RemoteSource) -> Wanted:
    return Wanted(
        old.project,
        source,
        public=old.public,
        auto_update=old.auto_update,
        cached=old.cached,
        profiles=old.profiles,
    )


def _no_source(image: Image) -> NotFound:
    words = f'Failed to update image "{image.fingerprint}" in project "{image.project}"'
    return NotFound("NO_SOURCE", f"{words}: Image source not found", about=image.fingerprint)
