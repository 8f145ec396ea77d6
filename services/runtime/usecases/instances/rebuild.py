"""Rebuild a stopped instance: an empty root over another image, or the same again. All else stays."""

from __future__ import annotations

from dataclasses import replace

from core.operations.operation import Context, Operation, Step, Story
from core.records import Instance, InstanceObserved
from core.state import codec, keys
from core.state.store import Txn
from services.runtime.domain import applications
from services.runtime.domain.expand import root_of
from services.runtime.usecases.claims import Claims
from services.runtime.usecases.host import Host
from services.runtime.usecases.instances.create import Create, Source
from services.runtime.usecases.instances.volatile import APPLY_TEMPLATE
from services.runtime.usecases.peers import FoundImage
from services.runtime.usecases.policy import Policy

KIND = "instance.rebuild"


class Rebuild:
    def __init__(self, host: Host, policy: Policy, claims: Claims, create: Create) -> None:
        self._host = host
        self._store = host.store
        self._policy = policy
        self._claims = claims
        self._create = create
        claims.runner.register(
            Story(
                KIND,
                "Rebuilding instance",
                (Step("prepare", self._prepare), Step("empty", self._empty), Step("settle", self._settle)),
                on_failure=self._as_found,
            )
        )

    async def accept(self, project: str, name: str, source: Source) -> Operation:
        """Raises: NotFound, Invalid, WrongState when it runs, Busy."""
        image = await self._create.image_of(project, source)
        input: dict[str, str] = {}

        def change() -> Txn:
            entry = self._store.instance(project, name)
            new = _rebuilt(entry.record, image)
            input["new"] = codec.encode(new).decode()
            txn = Txn().unchanged(keys.instance(project, name), entry.revision)
            self._policy.admit(txn, new, replaces=entry.record)
            return txn

        return await self._claims.accept(KIND, "rebuild", project, name, change=change, input=input)

    # --- steps -----------------------------------------------------------------------------------

    async def _prepare(self, ctx: Context) -> None:
        """See that the image is there before what is in the way goes."""
        ctx.scratch["lower"] = await self._host.lower(_new(ctx))

    async def _empty(self, ctx: Context) -> None:
        new = _new(ctx)
        ctx.scratch["emptied"] = True
        await self._host.clean(new.id)
        await self._host.remove_volume(new.pool, new.id)
        size = root_of(self._host.expanded(new).devices).size
        await self._host.driver_of(new.pool).ensure_volume(new.pool, new.id, size=size)
        await self._host.seed(new, ctx.scratch["lower"])

    async def _settle(self, ctx: Context) -> None:
        self._record(ctx, ctx.txn, self._claims.of(ctx)[1])
        ctx.txn.emit(ctx.event("instance-updated", "instances", _new(ctx).name))

    def _record(self, ctx: Context, txn: Txn, observed: InstanceObserved) -> None:
        new = _new(ctx)
        txn.put(keys.instance(new.project, new.name), new)
        volatile = {**observed.volatile, "volatile.base_image": new.image, APPLY_TEMPLATE: "create"}
        self._claims.settle(ctx, txn, replace(observed, volatile=volatile))

    async def _as_found(self, ctx: Context) -> None:
        """What was emptied lies on the new image, whatever failed after that."""
        _, observed = self._claims.of(ctx)
        if ctx.scratch.get("emptied"):
            self._record(ctx, ctx.undo_txn, observed)
        else:
            self._claims.settle(ctx, ctx.undo_txn, observed)


def _rebuilt(old: Instance, image: FoundImage | None) -> Instance:
    own = {key: value for key, value in old.config.items() if not key.startswith("image.")}
    if image:
        own = applications.replaced(own, image.application)
    properties = {f"image.{k}": v for k, v in image.properties.items()} if image else {}
    architecture = image.architecture if image else old.architecture
    return replace(
        old,
        config={**properties, **own},
        architecture=architecture,
        image=image.fingerprint if image else "",
        base_dir="",
        base_shift=0,
    )


def _new(ctx: Context) -> Instance:
    return codec.decode(Instance, ctx.input["new"].encode())
