"""Say of NICs recorded when there was one member only that they are on it, before others read them."""

from __future__ import annotations

import contextlib
from dataclasses import replace

from core.errors import Stale
from core.membership import is_here
from core.state import keys
from core.state.store import Txn
from services.network.store import NetworkStore


async def adopt(store: NetworkStore) -> None:
    """Repeatable."""
    for key, entry in store.nics.items():
        nic = entry.record
        found = store.instances.get(keys.instance(nic.project, nic.instance_name))
        is_elsewhere = found is not None and not is_here(found.record.member, store.member)
        if nic.member or not store.member or is_elsewhere:
            continue
        with contextlib.suppress(Stale):  # whoever changed it said so
            adopted = replace(nic, member=store.member)
            txn = Txn().unchanged(key, entry.revision).put(key, adopted)
            store.nics.apply(key, adopted, await store.store.commit(txn))
