"""Which etcd is asked: this member's own, and in a cluster those of others while that is away."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import grpc

from core.tasks import cancelled
from protos.etcd.v3 import etcd_pb2 as pb
from protos.etcd.v3 import etcd_pb2_grpc as rpc

_OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 3_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.service_config", '{"loadBalancingConfig":[{"round_robin":{}}]}'),
]
_LOOK_S, _ANSWER_S = 2.0, 1.0


class Line:
    """A channel to an endpoint, and its stubs. watches: the calls that follow something there."""

    def __init__(self, endpoint: str, credentials: grpc.ChannelCredentials | None = None) -> None:
        self.endpoint = endpoint
        if credentials:
            self.channel = grpc.aio.secure_channel(endpoint, credentials, _OPTIONS)
        else:
            target = endpoint if endpoint.startswith("unix:") else f"ipv4:{endpoint}"
            self.channel = grpc.aio.insecure_channel(target, _OPTIONS)
        self.kv: Any = rpc.KVStub(self.channel)
        self.watch: Any = rpc.WatchStub(self.channel)
        self.lease: Any = rpc.LeaseStub(self.channel)
        self.cluster: Any = rpc.ClusterStub(self.channel)
        self.watches: set[Any] = set()

    async def answers(self, timeout_s: float, *, with_others: bool = False) -> bool:
        """Say whether it lives; from its memory alone, or as the others agree *with_others*."""
        probe = pb.RangeRequest(key=b"\0", serializable=not with_others, keys_only=True)
        try:
            await self.kv.Range(probe, timeout=timeout_s)
        except grpc.aio.AioRpcError:
            return False
        return True


@dataclass(frozen=True)
class Others:
    """The etcds of other members: endpoints tells where (host:port), credentials who we are there."""

    endpoints: Callable[[], Sequence[str]]
    credentials: Callable[[], grpc.ChannelCredentials | None]


class Lines:
    """current: the line to ask on. With *others* it is looked after from the first follow() on."""

    def __init__(self, endpoint: str, others: Others | None) -> None:
        self._others = others
        self._own = self.current = Line(endpoint)
        self._known = {endpoint: self._own}
        self._task: asyncio.Task[None] | None = None
        # A watch at an etcd that lost the others must end, not wait for them.
        self.watching = (("hasleader", "true"),) if others else ()

    def look_after(self) -> None:
        """Notice an etcd that hangs though nobody asks it anything, and go back to the own one."""
        if self._others and self._task is None:
            # Owned by this object until close().
            self._task = asyncio.create_task(self._look(), name="etcd lines")

    def leave(self, line: Line) -> None:
        """Ask the next endpoint from now on, if there is one, and nobody left *line* before."""
        if not self._others or line is not self.current:
            return
        known = list(dict.fromkeys([self._own.endpoint, *self._others.endpoints()]))
        at = known.index(line.endpoint) if line.endpoint in known else -1
        following = known[(at + 1) % len(known)]
        with contextlib.suppress(OSError):  # without a certificate there is nobody else to ask
            if following not in self._known:
                self._known[following] = Line(following, self._others.credentials())
            self.current = self._known[following]
        if line is not self.current:
            for call in list(line.watches):
                call.cancel()  # it goes on where it was, at another

    def is_left(self, line: Line) -> bool:
        return line is not self.current

    async def close(self) -> None:
        await cancelled(self._task)
        for line in self._known.values():
            await line.channel.close()

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            line = self.current
            if not await line.answers(_ANSWER_S):
                self.leave(line)
            elif line is not self._own and await self._own.answers(_ANSWER_S, with_others=True):
                self.current = self._own
