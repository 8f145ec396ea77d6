"""The etcds of a cluster: which there are, one more, and which have a vote. Nothing else changes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import grpc

from core.errors import Unavailable, WrongState
from core.state.etcd import EtcdStore
from protos.etcd.v3 import etcd_pb2 as pb

_LIST, _ADD = attrgetter("cluster.MemberList"), attrgetter("cluster.MemberAdd")
_UPDATE, _REMOVE = attrgetter("cluster.MemberUpdate"), attrgetter("cluster.MemberRemove")
_PROMOTE = attrgetter("cluster.MemberPromote")


@dataclass(frozen=True)
class EtcdMember:
    """name is empty until it was started once. peer: https://host:port."""

    id: int
    name: str
    peer: str
    is_learner: bool


class EtcdMembers:
    def __init__(self, store: EtcdStore) -> None:
        self._store = store

    async def all(self) -> tuple[EtcdMember, ...]:
        reply = await self._store.call(_LIST, pb.MemberListRequest(linearizable=True))
        return _members(reply.members)

    async def move(self, id: int, peer: str) -> None:
        """Say where an etcd will speak to its peers. Repeatable."""
        await self._asked(_UPDATE, pb.MemberUpdateRequest(ID=id, peerURLs=[peer]))

    async def add_learner(self, peer: str) -> tuple[EtcdMember, ...]:
        """Let one more follow, without a vote; return all of them."""
        reply = await self._asked(_ADD, pb.MemberAddRequest(peerURLs=[peer], isLearner=True))
        return _members(reply.members)

    async def promote(self, id: int) -> bool:
        """Give a learner its vote; return whether it has it: one that lags behind gets none yet."""
        try:
            await self._asked(_PROMOTE, pb.MemberPromoteRequest(ID=id))
        except (Unavailable, WrongState):
            return False
        return True

    async def remove(self, id: int) -> None:
        await self._asked(_REMOVE, pb.MemberRemoveRequest(ID=id))

    async def _asked(self, method: Any, request: Any) -> Any:
        try:
            return await self._store.call(method, request, again=False)
        except grpc.aio.AioRpcError as exc:
            raise WrongState("ETCD_REFUSED", f"The state store refused: {exc.details()}") from exc


def _members(found: Sequence[Any]) -> tuple[EtcdMember, ...]:
    return tuple(EtcdMember(m.ID, m.name, next(iter(m.peerURLs), ""), m.isLearner) for m in found)
