"""The store over etcd: a thin asynchronous client on our own compiled stubs.

Why not the `etcd3` package here: 0.12.0 has no asyncio, loses every watch when etcd restarts, burns
CPU while etcd is away and has no deadline by default. It is used where a synchronous client is right
(see core/state/etcd3_compat.py). Nothing outside this file knows etcd's protocol.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import os
import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import grpc

from core.errors import Stale, Unavailable
from core.state.etcdlines import Line, Lines, Others
from core.state.store import (
    KV,
    Change,
    Check,
    Commit,
    Lease,
    Listing,
    Resync,
    Txn,
    Unknown,
    compacted,
    lease_lapsed,
    whole_puts,
    yet_to_come,
)
from protos.etcd.v3 import etcd_pb2 as pb

# Callers learn within a second that etcd hangs.
_SLOW_S, _PROBE_S = 0.3, 0.6
_RANGE, _TXN = attrgetter("kv.Range"), attrgetter("kv.Txn")
_GRANT, _REVOKE = attrgetter("lease.LeaseGrant"), attrgetter("lease.LeaseRevoke")
# Whoever says so has not carried it out: it is not there, follows only, or has nobody to agree with.
_NOT_BEGUN = ("connections to all backends failing", "not supported for learner", "no leader")
_AWAY = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.CANCELLED,
)


def prefix_end(prefix: bytes) -> bytes:
    """Return the first key after all that start with *prefix* (which must not be all 0xff)."""
    for i in range(len(prefix) - 1, -1, -1):
        if prefix[i] < 0xFF:
            return prefix[:i] + bytes([prefix[i] + 1])
    return b"\0"


_NO_ROOM = 1 << 20


def unavailable(endpoint: str) -> Unavailable:
    what_now = "; its disk is full: make room there" if _is_full(endpoint) else "; try again"
    return Unavailable(
        "ETCD_UNAVAILABLE", f"The state store at {endpoint} does not answer{what_now}", about=endpoint
    )


def _is_full(endpoint: str) -> bool:
    """Say whether the disk of an etcd of this host is full, by far the likeliest reason why it would end."""
    kind, _, path = endpoint.partition(":")
    if kind != "unix":
        return False
    try:
        found = os.statvfs(os.path.dirname(path))
    except OSError:
        return False
    return found.f_bavail * found.f_frsize < _NO_ROOM


@dataclass
class _Attempt:
    """A call, and whether we ended it since etcd is not there."""

    call: Any
    is_given_up: bool = False


class EtcdStore:
    """Speaks to one endpoint ("host:port,...", or a socket "unix:PATH"), and to others when that is away.

    Whichever answered last is asked first. A call that cannot have happened, or may happen twice, is made
    again there at once; others fail as with a single etcd, and the next one is made elsewhere.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        member: str = "",
        service: str = "",
        timeout_s: float = 3.0,
        others: Others | None = None,
    ) -> None:
        self._endpoint = endpoint
        self._member = member
        self._service = service
        self._timeout_s = timeout_s
        self._probes: set[asyncio.Task[None]] = set()
        self._answers = asyncio.Event()
        self._lines = Lines(endpoint, others)
        self.unknown: Unknown = {}

    async def get(self, key: str) -> KV | None:
        reply = await self.call(_RANGE, pb.RangeRequest(key=key.encode()))
        return _kv(reply.kvs[0]) if reply.kvs else None

    async def list(self, prefix: str) -> Listing:
        start = prefix.encode()
        reply = await self.call(_RANGE, pb.RangeRequest(key=start, range_end=prefix_end(start)))
        return Listing(reply.header.revision, [_kv(kv) for kv in reply.kvs])

    async def commit(self, txn: Txn) -> int:
        puts = whole_puts(txn, self.unknown, member=self._member, service=self._service)
        request = pb.TxnRequest(
            compare=[_compare(check) for check in txn.checks],
            success=[*_delete_ops(txn.deletes), *_put_ops(puts, txn.leases)],
        )
        try:
            reply = await self.call(_TXN, request, again=False)
        except grpc.aio.AioRpcError as exc:
            if exc.code() == grpc.StatusCode.NOT_FOUND:
                raise lease_lapsed() from exc
            raise
        if not reply.succeeded:
            raise Stale("CONFLICT", "The state changed meanwhile; read it again and retry")
        return int(reply.header.revision)

    async def follow(self, prefix: str) -> AsyncIterator[Resync | Change]:
        """List, then watch; survives restarts, fail-over and compaction without gap or repeat."""
        while True:
            listing = await self._list_patiently(prefix)
            yield Resync(listing.revision, listing.kvs)
            start = prefix.encode()
            async for reply in self._replies(start, prefix_end(start), listing.revision + 1):
                for event in reply.events:
                    yield _change(event)

    async def history(self, prefixes: Sequence[str], since: int | None) -> AsyncGenerator[Commit, None]:
        probe = pb.RangeRequest(key=min(prefixes).encode(), limit=1, keys_only=True)
        newest = (await self.call(_RANGE, probe)).header.revision
        since = newest if since is None else since
        if since > newest:
            raise yet_to_come(since, newest)
        probe.revision = min(since + 1, newest)
        try:
            await self.call(_RANGE, probe)
        except grpc.aio.AioRpcError as exc:
            if exc.code() == grpc.StatusCode.OUT_OF_RANGE:
                raise compacted(await self._oldest(probe.key, since + 1)) from exc
            raise
        return self._commits([prefix.encode() for prefix in prefixes], since + 1)

    async def _commits(self, prefixes: Sequence[bytes], next_revision: int) -> AsyncGenerator[Commit, None]:
        # One watch for all of them, since etcd orders only the answers of one; the rest is dropped here.
        start, end = min(prefixes), prefix_end(max(prefixes))
        async for reply in self._replies(start, end, next_revision):
            if reply.compact_revision:
                raise compacted(reply.compact_revision)
            for commit in _by_revision(reply.events, tuple(prefixes)):
                yield commit

    async def _oldest(self, key: bytes, revision: int) -> int:
        """Return the revision before which all is compacted, as *revision* is: only a watch is told."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._timeout_s):
                async for reply in self._replies(key, prefix_end(key), revision):
                    if reply.compact_revision:
                        return int(reply.compact_revision)
        raise unavailable(self._endpoint)

    async def _list_patiently(self, prefix: str) -> Listing:
        for pause_s in _pauses():
            with contextlib.suppress(Unavailable):
                return await self.list(prefix)
            await self._pause(pause_s)
        raise AssertionError  # pauses never end

    async def _replies(self, start: bytes, end: bytes, next_revision: int) -> AsyncIterator[Any]:
        """Yield what a watch is told from *next_revision* on, whatever happens to etcd meanwhile.

        Ends with the reply that names a compact_revision, if what comes next is kept no longer.
        """
        pauses = _pauses()
        while True:
            try:
                async for reply in self._watched(start, end, next_revision):
                    pauses = _pauses()
                    yield reply
                    if reply.compact_revision:
                        return
                    next_revision = max(next_revision, _seen(reply) + 1)
            except grpc.aio.AioRpcError as exc:
                if exc.code() not in _AWAY:
                    raise
            await self._pause(next(pauses))

    async def _pause(self, seconds: float) -> None:
        """Wait before the next try to follow; no longer than until any call is answered again."""
        self._answers.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._answers.wait(), seconds)

    async def grant(self, ttl_s: float) -> Lease:
        reply = await self.call(_GRANT, pb.LeaseGrantRequest(TTL=math.ceil(ttl_s)))
        return Lease(reply.ID, reply.TTL)

    async def renew(self, lease: Lease) -> bool:
        # etcd offers this as a stream only; one question and its answer each time keeps no state to heal.
        line = self._lines.current
        call = line.lease.LeaseKeepAlive(timeout=self._timeout_s)
        try:
            await call.write(pb.LeaseKeepAliveRequest(ID=lease.id))
            reply = await call.read()
            if reply is grpc.aio.EOF:
                raise unavailable(line.endpoint)
            return bool(reply.TTL > 0)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError) as exc:
            self._lines.leave(line)
            raise unavailable(line.endpoint) from exc
        finally:
            call.cancel()

    async def revoke(self, lease: Lease) -> None:
        with contextlib.suppress(grpc.aio.AioRpcError):  # NOT_FOUND: it has lapsed by itself
            await self.call(_REVOKE, pb.LeaseRevokeRequest(ID=lease.id))

    async def close(self) -> None:
        await self._lines.close()

    async def _watched(self, start: bytes, end: bytes, revision: int) -> AsyncIterator[Any]:
        create = pb.WatchCreateRequest(
            key=start, range_end=end, start_revision=revision, progress_notify=True
        )
        self._lines.look_after()
        line = self._lines.current
        call = line.watch.Watch(metadata=self._lines.watching)
        line.watches.add(call)
        try:
            await call.write(pb.WatchRequest(create_request=create))
            async for reply in call:
                yield reply
                if reply.canceled:
                    return
        except grpc.aio.AioRpcError as exc:
            if exc.code() in _AWAY:
                self._lines.leave(line)
            raise
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not self._lines.is_left(line) or (task and task.cancelling()):
                raise
        finally:
            line.watches.discard(call)
            call.cancel()

    async def call(self, method: Callable[[Line], Any], request: Any, *, again: bool = True) -> Any:
        """Call *method*; *again* elsewhere when it may be repeated. Raises: Unavailable."""
        tried = set[str]()
        while True:
            line = self._lines.current
            tried.add(line.endpoint)
            try:
                return await self._ask(line, method(line), request)
            except Unavailable as exc:
                self._lines.leave(line)
                if self._lines.current.endpoint in tried or not (again or _is_not_begun(exc)):
                    raise

    async def _ask(self, line: Line, method: Any, request: Any) -> Any:
        attempt = _Attempt(method(request, timeout=self._timeout_s))
        doubt = asyncio.get_running_loop().call_later(_SLOW_S, self._doubt, line, attempt)
        try:
            reply = await attempt.call
            self._answers.set()
            return reply
        except grpc.aio.AioRpcError as exc:
            if exc.code() in _AWAY:
                raise unavailable(line.endpoint) from exc
            raise
        except asyncio.CancelledError:
            if attempt.is_given_up:
                raise unavailable(line.endpoint) from None
            raise
        finally:
            doubt.cancel()

    def _doubt(self, line: Line, attempt: _Attempt) -> None:
        # Kept here until it is done: a task that nobody holds may be collected.
        task = asyncio.create_task(self._give_up_unless_alive(line, attempt), name="etcd probe")
        self._probes.add(task)
        task.add_done_callback(self._probes.discard)

    async def _give_up_unless_alive(self, line: Line, attempt: _Attempt) -> None:
        """Tell a frozen etcd from one whose disk is slow: that one still answers from memory."""
        if not await line.answers(_PROBE_S) and not attempt.call.done():
            attempt.is_given_up = True
            attempt.call.cancel()


def _is_not_begun(exc: Unavailable) -> bool:
    """Return whether what failed so cannot have happened."""
    cause = exc.__cause__
    details = (cause.details() or "") if isinstance(cause, grpc.aio.AioRpcError) else ""
    return any(words in details for words in _NOT_BEGUN)


def _kv(kv: Any) -> KV:
    return KV(kv.key.decode(), kv.value, kv.mod_revision, kv.create_revision)


def _change(event: Any) -> Change:
    gone = event.type == pb.Event.DELETE
    return Change(event.kv.key.decode(), None if gone else event.kv.value, event.kv.mod_revision)


def _by_revision(events: Sequence[Any], prefixes: tuple[bytes, ...]) -> Iterator[Commit]:
    concerned = [event for event in events if event.kv.key.startswith(prefixes)]
    for revision, together in itertools.groupby(concerned, lambda event: int(event.kv.mod_revision)):
        yield Commit(revision, tuple(_change(event) for event in together))


def _seen(reply: Any) -> int:
    """Return the revision up to which a watch was told everything.

    The header of a reply with events may be ahead of them: a watch that was far behind catches up in
    several replies, none of which splits a revision.
    """
    if reply.events:
        return int(reply.events[-1].kv.mod_revision)
    return 0 if reply.created else int(reply.header.revision)


def _pauses() -> Iterator[float]:
    """Yield growing pauses, with jitter so that not all come back at once."""
    pause_s = 0.05
    while True:
        yield pause_s * (0.5 + random.random())  # noqa: S311 - jitter, no secret
        pause_s = min(pause_s * 2, 1.0)


def _put_ops(puts: dict[str, bytes], leases: dict[str, int]) -> list[Any]:
    return [
        pb.RequestOp(request_put=pb.PutRequest(key=k.encode(), value=v, lease=leases.get(k, 0)))
        for k, v in puts.items()
    ]


def _delete_ops(deleted: Sequence[str]) -> list[Any]:
    return [pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=key.encode())) for key in deleted]


def _compare(check: Check) -> Any:
    key = check.key.encode()
    if check.kind == "absent":
        return pb.Compare(key=key, target=pb.Compare.CREATE, create_revision=0)
    if check.kind == "exists":
        return pb.Compare(key=key, result=pb.Compare.GREATER, target=pb.Compare.CREATE, create_revision=0)
    if check.kind == "unchanged":
        return pb.Compare(key=key, target=pb.Compare.MOD, mod_revision=check.revision)
    return pb.Compare(
        key=key,
        range_end=prefix_end(key),
        result=pb.Compare.LESS,
        target=pb.Compare.MOD,
        mod_revision=check.revision + 1,
    )
