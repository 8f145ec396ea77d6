"""Instances of all members as one: lists are put together, and those of a member that is away say so."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from core.errors import PodiumError, Unavailable
from core.logs import get_logger
from gateway.routing import Routed
from protos.podium.runtime.v1 import instance_pb2 as pb

log = get_logger(__name__)
_PATIENCE_S = 5.0


class RoutedInstances(Routed):
    async def GetInstance(self, request: Any) -> Any:
        """Return it as its member tells it; of one that is away, what is recorded."""
        member = await self._cluster.member_of(request.project, request.name)
        try:
            reply = await self.of(member).GetInstance(request)
        except Unavailable:
            if member == self._cluster.here or self._cluster.lives(member):
                raise
            asked = pb.GetInstanceRequest(
                project=request.project, name=request.name, view=pb.INSTANCE_VIEW_SPEC
            )
            reply = await self._local.GetInstance(asked)
        self._mark([reply.instance])
        return reply

    async def ListInstances(self, request: Any) -> Any:
        """Return those of all members: what its own member says of an instance is what holds."""
        if request.view == pb.INSTANCE_VIEW_NAME:
            return await self._local.ListInstances(request)
        others = self._cluster.others()
        asked = (self._listed(member, request) for member in others)
        mine, *theirs = await asyncio.gather(self._local.ListInstances(request), *asked)
        found = dict(zip(others, theirs, strict=True))
        told = [i for i in mine.instances if found.get(i.member) is None]
        told += [i for member, reply in found.items() if reply for i in reply.instances if i.member == member]
        told.sort(key=lambda i: (i.project, i.name))
        self._mark(told)
        return pb.ListInstancesResponse(instances=told, revision=mine.revision, next_place=mine.next_place)

    async def _listed(self, member: str, request: Any) -> Any:
        """Return None for a member that does not answer."""
        try:
            return await self.of(member).ListInstances(request, timeout=_PATIENCE_S)
        except PodiumError as exc:
            log.warning("member_not_listed", member=member, error=exc.message)
            return None

    async def FollowProfile(self, request: Any, **how: Any) -> Any:
        """Let every member's instances follow; a member that is away does so when it comes back."""
        stubs = [self._local, *(self.of(member) for member in self._cluster.others())]
        reply, *_ = await asyncio.gather(*(stub.FollowProfile(request, **how) for stub in stubs))
        return reply

    def _mark(self, instances: Iterable[Any]) -> None:
        for instance in instances:
            instance.location = instance.member or self._cluster.here
            if instance.location != self._cluster.here and not self._cluster.lives(instance.location):
                instance.status = pb.INSTANCE_STATUS_ERROR
                instance.status_message = f"Member {instance.location} does not answer"
