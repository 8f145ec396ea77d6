"""Give instances their host ids: decided when they are made, and again at a start when keys changed.

Files on disk hold ids as the guest sees them, so another map costs no shifting.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from core.configkeys.instance import INSTANCE
from core.errors import Busy, Stale
from core.failpoints import declare, failpoint
from core.records import IdmapBlock, Instance
from core.state import keys
from core.state.store import Txn
from core.units import parse_bool
from services.runtime.domain import idmaps
from services.runtime.store import RuntimeStore

_ATTEMPTS = 16
_CLAIMED = "instance.ids.claimed"
declare(_CLAIMED)


def claim(txn: Txn, member: str, instance: Instance) -> None:
    """Take in *txn* the blocks that *instance* names."""
    for block in idmaps.blocks(instance.idmap_base, instance.idmap_size):
        key = keys.idmap(member, block)
        txn.absent(key).put(key, IdmapBlock(block, instance.id))


def give_back(txn: Txn, member: str, instance: Instance) -> None:
    for block in idmaps.blocks(instance.idmap_base, instance.idmap_size):
        txn.delete(keys.idmap(member, block))


def decide(
    store: RuntimeStore, instance: Instance, want: idmaps.Wanted, *, promised: Iterable[int] = ()
) -> Instance:
    """Return *instance* with ids that nobody else has. *promised*: blocks that others are about to claim.

    Raises: Invalid, LimitReached.
    """
    taken = (e.record.base for e in store.idmaps.entries() if e.record.instance_id != instance.id)
    base = idmaps.place(want, {*taken, *promised})
    return replace(
        instance,
        idmap_base=base,
        idmap_size=want.size if base else idmaps.EVERY,
        idmap_raw=want.raw if base else "",
    )


async def ensure(store: RuntimeStore, member: str, instance: Instance, want: idmaps.Wanted) -> Instance:
    """Return *instance* with the ids that its keys ask for. Only while it is stopped. Repeatable.

    A commit of its own: what was claimed must be so before the host makes use of it.
    """
    for _ in range(_ATTEMPTS):
        entry = store.instance(instance.project, instance.name)
        if idmaps.fits(entry.record, want):
            return entry.record
        new = decide(store, entry.record, want)
        txn = Txn().unchanged(keys.instance(new.project, new.name), entry.revision)
        txn.put(keys.instance(new.project, new.name), new)
        _move(txn, member, entry.record, new)
        try:
            await store.commit(txn)
        except Stale:
            continue
        failpoint(_CLAIMED)
        return store.instance(new.project, new.name).record
    raise Busy("BUSY", "Too much changes right now; try again", about=instance.name)


def _move(txn: Txn, member: str, old: Instance, new: Instance) -> None:
    """Claim what is new and give back what is not needed any more; a block of both stays."""
    before = set(idmaps.blocks(old.idmap_base, old.idmap_size))
    after = set(idmaps.blocks(new.idmap_base, new.idmap_size))
    for block in sorted(after - before):
        key = keys.idmap(member, block)
        txn.absent(key).put(key, IdmapBlock(block, new.id))
    for block in sorted(before - after):
        txn.delete(keys.idmap(member, block))


def volatile(instance: Instance, config: Mapping[str, str]) -> dict[str, str]:
    """Return the keys that tell which ids *instance* has, or has at its next start."""
    is_isolated = parse_bool(INSTANCE.get(config, "security.idmap.isolated"))
    return {
        "volatile.idmap.base": str(instance.idmap_base if is_isolated else 0),
        "volatile.idmap.next": idmaps.shown(idmaps.of(instance)),
    }
