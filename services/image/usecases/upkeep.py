"""What happens to images by itself: those that follow another server are refreshed, unused cached ones go."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable

from core.errors import AlreadyExists, NotFound, PodiumError, Stale
from core.logs import get_logger
from core.operations.runner import Runner
from core.records import Image
from services.image.store import ImageStore
from services.image.usecases.choices import Choices
from services.image.usecases.downloads import source_of
from services.image.usecases.images import Images
from services.image.usecases.refresh import Refresh

log = get_logger(__name__)


class Upkeep:
    def __init__(
        self,
        store: ImageStore,
        choices: Choices,
        images: Images,
        refresh: Refresh,
        runner: Runner,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._choices = choices
        self._images = images
        self._refresh = refresh
        self._runner = runner
        self._clock = clock
        self._done: set[str] = set()

    async def run(self) -> None:
        """Do what is due. Members may do so at the same time, and restart: nothing is done twice."""
        for image in [entry.record for entry in self._store.images.entries()]:
            try:
                if self._is_forgotten(image):
                    await self._forget(image)
                elif id := self._due(image):
                    await self._bring_up_to_date(image, id)
            except PodiumError as exc:
                log.warning("image_upkeep_failed", fingerprint=image.fingerprint, error=str(exc))

    def _is_forgotten(self, image: Image) -> bool:
        """Say whether it came with a launch, and none was made of it for long."""
        kept_s = self._choices.unused_for_s(image.project)
        last_used_at = max(self._store.last_used_at(image), image.uploaded_at)
        return image.cached and kept_s > 0 and last_used_at + kept_s < self._clock()

    async def _forget(self, image: Image) -> None:
        with contextlib.suppress(NotFound, Stale):  # another member was first
            operation = await self._images.delete(image.project, image.fingerprint)
            await self._runner.wait(operation.id)
            log.info("cached_image_expired", fingerprint=image.fingerprint, project=image.project)

    def _due(self, image: Image) -> str:
        """Return the id of the refresh that is due; "" for none.

        Time is cut into intervals, and each has one: who records that operation first does it.
        """
        every_s = self._choices.update_every_s(image.project)
        if (
            self._choices.is_offline
            or not image.auto_update
            or not every_s
            or source_of(image.origin) is None
        ):
            return ""
        interval = int(self._clock() // every_s)
        if interval <= int(image.uploaded_at // every_s):
            return ""
        what = f"refresh {image.project} {image.fingerprint} {every_s:g} {interval}"
        id = str(uuid.uuid5(uuid.NAMESPACE_OID, what))
        return "" if id in self._done else id

    async def _bring_up_to_date(self, image: Image, id: str) -> None:
        self._done.add(id)
        if self._runner.find(id):
            return
        with contextlib.suppress(Stale, AlreadyExists):
            await self._refresh.accept(image.project, image.fingerprint, id=id)
            done = await self._runner.wait(id)
            if error := done.error():
                raise error
            if done.metadata.get("refreshed"):
                log.info("image_refreshed", old=image.fingerprint, new=done.metadata["fingerprint"])
