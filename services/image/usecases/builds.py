"""Images made from packages: built, received like any upload, named."""

from __future__ import annotations

import asyncio
import uuid
from collections import deque
from contextlib import aclosing
from dataclasses import asdict, dataclass, replace

from core.errors import TooLate
from core.names import alias_name
from core.operations.operation import Context, Operation, Step, Story
from core.operations.runner import Runner
from core.records import Alias
from core.state import keys
from services.image.domain import recipetext
from services.image.ports import Blobs, Builder
from services.image.sources.recipe import Recipe, recipe_of
from services.image.store import ImageStore
from services.image.usecases.images import Images
from services.image.usecases.imports import Header, Imports

KIND = "image.build"
_RECIPE = "recipe"
_LIMIT_S = 1800.0
_MOST_LINES = 100


@dataclass(frozen=True)
class Wanted:
    """What was asked for."""

    project: str
    distribution: str
    release: str
    packages: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    force: bool = False
    text: str = ""
    """A recipe as YAML, in place of the above."""

    @property
    def recipe(self) -> Recipe:
        """Raises: Invalid."""
        if self.text:
            return recipetext.parse(self.text.encode())
        return recipe_of(self.distribution, self.release, tuple(self.packages))


class Builds:
    def __init__(
        self,
        store: ImageStore,
        blobs: Blobs,
        builder: Builder,
        imports: Imports,
        images: Images,
        runner: Runner,
    ) -> None:
        self._store = store
        self._blobs = blobs
        self._builder = builder
        self._imports = imports
        self._images = images
        self._runner = runner
        steps = (Step("build", self._build, self._drop), Step("name", self._name))
        runner.register(Story(KIND, "Building image", steps, may_cancel=True))

    async def accept(self, wanted: Wanted) -> Operation:
        """Raises: Invalid."""
        for name in wanted.aliases:
            alias_name(name)
        recipe = wanted.recipe
        return await self._runner.accept(
            KIND, project=wanted.project, input=asdict(wanted), metadata={"recipe": recipe.id}
        )

    async def _build(self, ctx: Context) -> None:
        wanted = Wanted(**ctx.input)
        fingerprint = "" if wanted.force else self._built_before(wanted)
        if not fingerprint:
            fingerprint = await self._import(ctx, wanted)
        ctx.scratch["fingerprint"] = fingerprint
        ctx.result(fingerprint=fingerprint)

    def _built_before(self, wanted: Wanted) -> str:
        """Return the newest image of the project made by the same recipe; empty for none."""
        images = [entry.record for entry in self._store.images.entries(keys.images(wanted.project))]
        made = [image for image in images if image.properties.get(_RECIPE) == wanted.recipe.id]
        return max(made, key=lambda image: image.uploaded_at).fingerprint if made else ""

    async def _import(self, ctx: Context, wanted: Wanted) -> str:
        log: deque[str] = deque(maxlen=_MOST_LINES)

        async def tell(line: str) -> None:
            log.append(line)
            ctx.result(build_log=list(log))
            await ctx.progress(build_progress=line)

        await self._drop(ctx)
        recipe, id = wanted.recipe, ctx.operation.id
        header = Header(
            wanted.project, f"{recipe.distribution}-{recipe.release}", properties={_RECIPE: recipe.id}
        )
        try:
            async with (
                asyncio.timeout(_LIMIT_S),
                aclosing(self._builder.parts(recipe, self._blobs.staging(id), tell)) as parts,
            ):
                operation = await self._imports.receive(str(uuid.uuid4()), header, parts)
        except TimeoutError:
            raise TooLate("BUILD_TIMEOUT", f"The build took longer than {_LIMIT_S / 60:g} min") from None
        await self._drop(ctx)
        done = await self._runner.wait(operation.id)
        if error := done.error():
            raise error
        return str(done.metadata["fingerprint"])

    async def _drop(self, ctx: Context) -> None:
        await asyncio.to_thread(self._blobs.drop_staging, ctx.operation.id)

    async def _name(self, ctx: Context) -> None:
        """Point the aliases at it; those that exist are moved."""
        for name in ctx.input["aliases"]:
            alias = Alias(ctx.operation.project, name, "", ctx.scratch["fingerprint"])
            known = self._store.aliases.get(keys.alias(alias.project, name))
            if known:
                alias = replace(alias, description=known.record.description)
                await self._images.update_alias(alias, expected_revision=0)
            else:
                await self._images.create_alias(alias)
