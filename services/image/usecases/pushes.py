"""Images sent to other servers that await them."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from dataclasses import asdict, dataclass

from core.errors import Invalid
from core.operations.operation import Context, Operation, Step, Story
from core.operations.runner import Runner
from services.image.ports import Blobs, Parcel, ParcelFile, Targets
from services.image.store import ImageStore
from services.image.usecases.images import Images
from services.image.usecases.progress import how_far

KIND = "image.push"
_TELL_EVERY_S = 0.5


@dataclass(frozen=True)
class Wanted:
    """What was asked for. may_reach_inside: addresses of this host and its networks may be sent to."""

    project: str
    fingerprint: str
    target: str
    certificate: str
    secret: str
    target_project: str
    profiles: tuple[str, ...]
    may_reach_inside: bool
    asked_in: str = ""


class Pushes:
    def __init__(
        self, store: ImageStore, images: Images, blobs: Blobs, targets: Targets, runner: Runner
    ) -> None:
        self._store = store
        self._images = images
        self._blobs = blobs
        self._targets = targets
        self._runner = runner
        # A secret is good for one try, so a crash ends it: whoever asked has to ask for another.
        story = Story(
            KIND, "Downloading image", (Step("send", self._send),), may_cancel=True, resumable=False
        )
        runner.register(story)

    async def accept(self, wanted: Wanted) -> Operation:
        """Raises: NotFound, Invalid."""
        image = (await self._store.image(wanted.project, wanted.fingerprint)).record
        if not wanted.target.startswith("https://"):
            raise Invalid("BAD_TARGET", "The target must be the https address of a server", about="target")
        if not wanted.secret:
            raise Invalid(
                "NO_SECRET", "The secret by which the target takes the image is needed", about="secret"
            )
        given = {**asdict(wanted), "fingerprint": image.fingerprint}
        return await self._runner.accept(KIND, project=wanted.asked_in or wanted.project, input=given)

    async def _send(self, ctx: Context) -> None:
        given = ctx.input
        image = (await self._store.image(given["project"], given["fingerprint"])).record
        await self._images.ensure(image.fingerprint)
        found = await asyncio.to_thread(self._images.files, image)
        files = tuple(ParcelFile(part, str(path), name, path.stat().st_size) for part, path, name in found)
        parcel = Parcel(
            given["target"],
            given["certificate"],
            given["secret"],
            given["target_project"],
            image.fingerprint,
            tuple(given["profiles"]),
            files,
            given["may_reach_inside"],
        )
        sent, begun = 0, time.monotonic()
        told = begun
        async with aclosing(self._targets.push(parcel)) as pieces:
            async for piece in pieces:
                sent += piece
                if (now := time.monotonic()) - told >= _TELL_EVERY_S:
                    told = now
                    await ctx.progress(upload_progress=how_far("rootfs", sent, image.size_bytes, now - begun))
        ctx.txn.emit(ctx.event("image-retrieved", "images", image.fingerprint))
