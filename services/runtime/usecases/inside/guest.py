"""What a guest may learn of itself, and say of itself: the runtime's part of the guest API.

Whose request it is was decided by the socket it came through; nothing a guest sends names an instance.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

from core.configkeys.guest import of_guest
from core.configkeys.instance import INSTANCE
from core.errors import Busy, LimitReached, NotFound, PodiumError, Stale, WrongState
from core.events import Event
from core.policy.expansion import Expanded
from core.records import Instance, InstanceObserved
from core.state import keys
from core.state.repository import Entry
from core.state.store import Txn
from core.units import parse_bool
from services.runtime.domain.cloudinit import INSTANCE_ID
from services.runtime.domain.guest import Change, Hook, changes
from services.runtime.domain.lifecycle import STOPPING, UP
from services.runtime.usecases.host import Host, has_guest_api
from services.runtime.usecases.instances.volatile import READY

_MOST_LISTENERS = 8
_MOST_WAITING = 256
_TRIES, _PAUSE_S = 100, 0.05


@dataclass(frozen=True)
class Guest:
    """config: what the guest may read. state: true, false or "" for nothing said."""

    instance: Instance
    allowed: bool
    may_export_images: bool
    state: str
    cloud_init_id: str
    config: dict[str, str]
    devices: dict[str, dict[str, str]]
    image_project: str


class Guests:
    def __init__(self, host: Host) -> None:
        self._host = host
        self._store = host.store
        self._listeners: dict[str, set[Listener]] = {}
        host.store.observed.on_change(self._observed)

    def get(self, id: str) -> Guest:
        """Raises: NotFound."""
        instance = self._instance(id)
        volatile = self._store.observed_of(instance).record.volatile
        expanded = self._host.expanded(instance)
        return Guest(
            instance=instance,
            allowed=has_guest_api(expanded.config),
            may_export_images=parse_bool(INSTANCE.get(expanded.config, "security.devlxd.images")),
            state=volatile.get(READY, ""),
            cloud_init_id=volatile.get(INSTANCE_ID, ""),
            config={key: value for key, value in expanded.config.items() if of_guest(key)},
            devices={name: _with_hwaddr(name, d, volatile) for name, d in expanded.devices.items()},
            image_project=self._store.home_of(instance.project, "images"),
        )

    async def say(self, id: str, *, is_ready: bool) -> None:
        """Record what the guest says of itself. Raises: NotFound, WrongState, Busy."""
        for _ in range(_TRIES):
            instance = self._instance(id)
            entry = self._store.observed_of(instance)
            if entry.record.status not in UP:
                raise WrongState("NOT_RUNNING", "The instance is not running", about=instance.name)
            if entry.record.volatile.get(READY, "") == _said(is_ready=is_ready):
                return
            # Whoever owns the record now writes it at its end as it found it; this would be lost.
            if not entry.record.operation and await self._record(instance, entry, is_ready=is_ready):
                return
            await asyncio.sleep(_PAUSE_S)
        raise Busy("BUSY", "The instance is busy with another operation; try again", about=id)

    async def _record(self, instance: Instance, entry: Entry[InstanceObserved], *, is_ready: bool) -> bool:
        volatile = {**entry.record.volatile, READY: _said(is_ready=is_ready)}
        key = keys.observed(instance.id)
        txn = Txn().unchanged(key, entry.revision).put(key, replace(entry.record, volatile=volatile))
        if is_ready:
            txn.emit(Event("instance-ready", "instances", instance.project, instance.name, time=time.time()))
        try:
            await self._store.commit(txn)
        except Stale:
            return False
        return True

    @contextmanager
    def listening(self, id: str) -> Iterator[Listener]:
        """Give a listener to changes from now on. Raises: NotFound, LimitReached."""
        listener = Listener(self._host.expanded(self._instance(id)))
        own = self._listeners.setdefault(id, set())
        if len(own) >= _MOST_LISTENERS:
            raise LimitReached("LISTENERS", f"A guest may have {_MOST_LISTENERS} event listeners")
        own.add(listener)
        try:
            yield listener
        finally:
            own.discard(listener)
            if not own and self._listeners.get(id) is own:
                del self._listeners[id]

    def _observed(self, key: str, entry: Entry[InstanceObserved] | None) -> None:
        """An operation ended, and what changed is in force now; or it begins to stop the guest."""
        id = key.rsplit("/", 1)[-1]
        listeners = self._listeners.get(id)
        if not listeners:
            return
        if entry:
            for listener in listeners:
                listener.see(entry.record.status)
            if entry.record.operation:
                return
        try:
            expanded = self._host.expanded(self._instance(id)) if entry else None
        except PodiumError:
            expanded = None
        for listener in listeners:
            listener.tell(expanded)

    def _instance(self, id: str) -> Instance:
        observed = self._store.observed.get(keys.observed(id))
        if observed is None:
            raise NotFound("NO_INSTANCE", "Instance not found", about=id)
        record = observed.record
        found = self._store.instances.get(keys.instance(record.project, record.name))
        if found and found.record.id == id:
            return found.record
        return next((e.record for e in self._store.instances.entries() if e.record.id == id), _gone(id))


class Listener:
    """What one listener was told last, and what waits for it. Iteration ends with the instance."""

    def __init__(self, seen: Expanded) -> None:
        self._queue: asyncio.Queue[Change | None] = asyncio.Queue(_MOST_WAITING)
        self._seen = seen
        self._status = ""

    async def __aiter__(self) -> AsyncIterator[Change]:
        while (change := await self._queue.get()) is not None:
            yield change

    def see(self, status: str) -> None:
        """Tell of a stop once, as soon as it was asked for: init hears of it after that."""
        if status == STOPPING != self._status and not self._queue.full():
            self._queue.put_nowait(Hook(STOPPING))
        self._status = status

    def tell(self, now: Expanded | None) -> None:
        """Queue what is new; who does not read is cut off, since a gap would be worse."""
        found: list[Change | None] = [*changes(self._seen, now)] if now else []
        if now is None or self._queue.qsize() + len(found) >= _MOST_WAITING:
            while not self._queue.empty():
                self._queue.get_nowait()
            found = [None]
        for change in found:
            self._queue.put_nowait(change)
        self._seen = now or self._seen


def _gone(id: str) -> Instance:
    raise NotFound("NO_INSTANCE", "Instance not found", about=id)


def _said(*, is_ready: bool) -> str:
    return "true" if is_ready else "false"


def _with_hwaddr(name: str, device: Mapping[str, str], volatile: Mapping[str, str]) -> dict[str, str]:
    hwaddr = volatile.get(f"volatile.{name}.hwaddr", "")
    if device.get("type") != "nic" or not hwaddr:
        return dict(device)
    return {"hwaddr": hwaddr, **device}
