"""Instances made of images that are on other servers: the image is brought, then the instance made of it."""

from __future__ import annotations

import contextlib
import random
from dataclasses import asdict, replace

from core.errors import AlreadyExists, NotFound, WrongState
from core.names import instance_name
from core.operations.operation import SUCCEEDED, Context, Operation, Step, Story
from core.operations.runner import Runner
from core.state import keys
from services.runtime.domain.words import two_words
from services.runtime.store import RuntimeStore
from services.runtime.usecases.instances.change import Changes
from services.runtime.usecases.instances.create import Create, Source, Wanted
from services.runtime.usecases.peers import Images, RemoteImage
from services.runtime.usecases.running.power import Power

KIND = "instance.create-remote"


class RemoteCreate:
    def __init__(
        self,
        store: RuntimeStore,
        images: Images,
        create: Create,
        power: Power,
        changes: Changes,
        runner: Runner,
    ) -> None:
        self._power = power
        self._changes = changes
        self._store = store
        self._images = images
        self._create = create
        self._runner = runner
        self._random = random.Random()  # noqa: S311 - a name is no secret
        steps = (
            Step("fetch_image", self._fetch_image),
            Step("create", self._create_instance, self._remove_instance),
        )
        runner.register(Story(KIND, "Creating instance", steps))

    async def accept(self, wanted: Wanted, image: RemoteImage) -> Operation:
        """Raises: Invalid, NotFound, AlreadyExists."""
        name = instance_name(wanted.name or two_words(self._random))
        self._store.home_of(wanted.project, "images")
        if self._store.instances.get(keys.instance(wanted.project, name)):
            raise AlreadyExists("EXISTS", f'Instance "{name}" already exists', about=name)
        return await self._runner.accept(
            KIND,
            project=wanted.project,
            resources={"instances": (name,)},
            input={"wanted": asdict(replace(wanted, name=name)), "image": asdict(image)},
        )

    async def _fetch_image(self, ctx: Context) -> None:
        async def tell(how_far: str) -> None:
            await ctx.progress(download_progress=how_far)

        home = self._store.home_of(ctx.input["wanted"]["project"], "images")
        ctx.scratch["fingerprint"] = await self._images.bring(home, RemoteImage(**ctx.input["image"]), tell)

    async def _create_instance(self, ctx: Context) -> None:
        """Have it made by an operation of its own, which a crash does not make begin a second time."""
        id = ctx.operation.child_id
        if self._runner.find(id) is None:
            wanted = Wanted(**{**ctx.input["wanted"], "source": Source(ctx.scratch["fingerprint"])})
            if wanted.profiles is not None:
                wanted = replace(wanted, profiles=tuple(wanted.profiles))
            await self._create.accept(wanted, id=id, requestor=ctx.operation.requestor)
        done = await self._runner.wait(id)
        if error := done.error():
            raise error

    async def _remove_instance(self, ctx: Context) -> None:
        """Take back what was made, running or not; a creation that failed took itself back."""
        done = self._runner.find(ctx.operation.child_id)
        if done and not done.is_final:
            done = await self._runner.wait(done.id)
        if done is None or done.state != SUCCEEDED:
            return
        wanted = ctx.input["wanted"]
        with contextlib.suppress(NotFound, WrongState):
            stop = await self._power.change(
                wanted["project"], wanted["name"], "stop", timeout_s=0, force=True
            )
            await self._runner.wait(stop.id)
        with contextlib.suppress(NotFound):
            await self._runner.wait((await self._changes.delete(wanted["project"], wanted["name"])).id)
