"""The claim of a process on the operations of its service and member, and the sign that it lives.

Two keys. The claim names its holder and stays; its revision is the *epoch*, and each transaction of
the runner checks it, so a process that lost its claim cannot write an outcome any more. The presence
is bound to a kept-alive lease: only when it has lapsed may another host take the claim over. A lease
that lapses while its process lives (etcd was away, the process was frozen) costs nothing: as long as
nobody took the claim, the presence is put back and the epoch still holds.

A start on the same host need not wait for the lease: whoever has the file lock that the claim names
knows that the old process is dead, because the kernel drops the lock with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from core.errors import NotFound, Stale, Unavailable
from core.logs import get_logger
from core.records import Claim, Presence
from core.state import codec, keys
from core.state.around import Around
from core.state.store import KV, Lease, LeaseStore, Store, Txn, Unknown
from core.tasks import cancelled

log = get_logger(__name__)
TTL_S = 10.0
_PAUSE_S = 0.5
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def lock_name(fd: int) -> str:
    """Return what tells the locked file *fd* from every other on any host, and this boot from others."""
    found = os.fstat(fd)
    return f"{_BOOT_ID.read_text().strip()}:{found.st_dev}:{found.st_ino}"


class Holder:
    """Takes and keeps the claim of one process. *on_lost* is called once if another took it."""

    def __init__(
        self,
        store: LeaseStore,
        *,
        service: str,
        member: str,
        lock: str,
        on_lost: Callable[[], object] = lambda: None,
        ttl_s: float = TTL_S,
    ) -> None:
        self._store = store
        self._key = keys.claim(member, service)
        self._presence_key = keys.presence(member, service)
        self._claim = Claim(uuid.uuid4().hex, lock, os.getpid(), socket.gethostname(), time.time())
        self._presence = Presence(member, service, self._claim.holder)
        self._on_lost = on_lost
        self._ttl_s = ttl_s
        self._told: Presence | None = None
        self._lease: Lease | None = None
        self._task: asyncio.Task[None] | None = None
        self.epoch = 0
        self.is_lost = False

    async def start(self) -> None:
        """Return when the claim is ours; waits for etcd, and for a living holder on another host."""
        told = ""
        while True:
            try:
                told = await self._take(told)
            except Unavailable as exc:
                if told != exc.reason:
                    log.warning("claim_waits", error=str(exc))
                told = exc.reason
            except Stale:
                continue
            if self.epoch:
                break
            await asyncio.sleep(_PAUSE_S)
        # Owned by this holder until stop().
        self._task = asyncio.create_task(self._keep(), name=f"claim {self._key}")

    async def stop(self) -> None:
        """Stop to renew and say at once that this process is gone."""
        await cancelled(self._task)
        if self._lease:
            with contextlib.suppress(Unavailable):
                await self._store.revoke(self._lease)

    async def announce(self, address: str) -> None:
        """Say where this service listens; said again later when etcd is away."""
        self._presence = replace(self._presence, address=address)
        with contextlib.suppress(Unavailable):
            await self._tell()

    def fence(self, txn: Txn) -> Txn:
        """Return *txn* so that it succeeds only while the claim is ours."""
        return Txn().unchanged(self._key, self.epoch).merge(txn)

    async def check(self) -> None:
        """Find out whether a transaction failed because the claim is lost. Raises: Unavailable CLAIM_LOST."""
        kv = await self._store.get(self._key)
        if kv is None or kv.revision != self.epoch:
            self._lose(kv)
            raise Unavailable("CLAIM_LOST", "Another process took this service over; try again")

    async def _take(self, told: str) -> str:
        """Take the claim if it may be taken; return whose claim was said to be waited for."""
        old, presence = await self._store.get(self._key), await self._store.get(self._presence_key)
        known = codec.decode(Claim, old.value) if old else None
        if known and presence and known.lock != self._claim.lock:
            if told != known.holder:
                log.warning("claim_held_elsewhere", host=known.host, pid=known.pid, key=self._key)
            return known.holder
        lease = await self._store.grant(self._ttl_s)
        txn = Txn().put(self._key, self._claim).put(self._presence_key, self._presence, lease=lease.id)
        txn.unchanged(self._key, old.revision if old else 0)
        txn.unchanged(self._presence_key, presence.revision if presence else 0)
        self.epoch = await self._store.commit(txn)
        self._lease, self._told = lease, self._presence
        return ""

    async def _keep(self) -> None:
        while not self.is_lost:
            assert self._lease
            await asyncio.sleep(min(self._ttl_s, self._lease.ttl_s) / 3)
            with contextlib.suppress(Unavailable):
                await self._renew(self._lease)

    async def _renew(self, lease: Lease) -> None:
        """Renew, or bind a new lease when this one lapsed while we live."""
        if not await self._store.renew(lease):
            log.warning("claim_lease_lapsed", key=self._key)
            self._lease, self._told = await self._store.grant(self._ttl_s), None
        if self._told != self._presence:
            await self._tell()

    async def _tell(self) -> None:
        assert self._lease
        presence = self._presence
        txn = Txn().put(self._presence_key, presence, lease=self._lease.id)
        try:
            await self._store.commit(self.fence(txn))
            self._told = presence
        except Stale:
            await self.check()
        except NotFound:
            log.warning("claim_lease_lapsed", key=self._key)  # the next renewal makes another, and tells

    def _lose(self, kv: KV | None) -> None:
        if self.is_lost:
            return
        self.is_lost = True
        now = codec.decode(Claim, kv.value) if kv else Claim()
        log.error("claim_lost", key=self._key, host=now.host, pid=now.pid)
        self._on_lost()


class Fenced(Around):
    """A store whose commits succeed only while the claim is ours; the check rides in the transaction."""

    def __init__(self, inner: Store, claim: Holder) -> None:
        super().__init__(inner)
        self._claim = claim

    @property
    def unknown(self) -> Unknown:
        return self._inner.unknown

    async def commit(self, txn: Txn) -> int:
        """Raises: Stale, Unavailable CLAIM_LOST."""
        try:
            return await self._inner.commit(self._claim.fence(txn))
        except Stale:
            await self._claim.check()
            raise
