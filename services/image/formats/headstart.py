"""A conversion that keeps pace with an upload, so that an image is ready when its last byte came.

It only saves time and gives no verdict: where it fails, and for archives that look like a bomb until
all of their bytes are here, the file as stored is converted afterwards.
"""

from __future__ import annotations

import asyncio

from core.errors import PodiumError
from core.logs import get_logger
from services.image.formats.pipeline import Pipeline

log = get_logger(__name__)


class HeadStart:
    """Implements ports.HeadStart over a pipeline that takes its input from feed()."""

    def __init__(self, pipeline: Pipeline, slots: asyncio.Semaphore) -> None:
        self._pipeline = pipeline
        # Owned by this object: done() and drop() both see its end.
        self._task = asyncio.create_task(_run(pipeline, slots), name="head start")

    async def feed(self, chunk: bytes) -> None:
        """Take the next bytes, no faster than they are converted. After a failure they are let go."""
        if self._task.done():
            return
        if not await self._pipeline.write(chunk):
            await asyncio.wait([self._task])

    def input(self) -> int:
        return self._pipeline.input()

    async def done(self, limit_s: float) -> bool:
        """The upload ended: return whether the squashfs is complete, after *limit_s* at the latest."""
        self._pipeline.end_input()
        await asyncio.wait([self._task], timeout=limit_s)
        if not self._task.done():
            await self.drop()
        return not self._task.cancelled() and self._task.result()

    async def drop(self) -> None:
        """Stop it where it is; what it wrote is of no use. Repeatable."""
        self._task.cancel()
        await asyncio.wait([self._task])
        self._pipeline.end_input()


async def _run(pipeline: Pipeline, slots: asyncio.Semaphore) -> bool:
    try:
        await pipeline.run(None)
        return True
    except PodiumError as exc:
        log.info("head_start_failed", error=str(exc))
        return False
    finally:
        slots.release()
