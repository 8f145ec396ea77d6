"""The AclService: convert, call, convert."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, fields
from typing import Any

from core.netrecords import AclRule, NetworkAcl
from core.state.repository import Entry
from protos.podium.network.v1 import acl_pb2 as pb
from protos.podium.network.v1 import acl_pb2_grpc as rpc
from services.network.ports import Host
from services.network.usecases.acls import Acls


class AclServicer(rpc.AclServiceServicer):
    def __init__(self, acls: Acls, host: Host) -> None:
        self._acls = acls
        self._host = host

    async def CreateAcl(self, request: pb.CreateAclRequest, context: Any) -> pb.CreateAclResponse:
        return pb.CreateAclResponse(acl=self._shown(await self._acls.create(_record(request.acl))))

    async def GetAcl(self, request: pb.GetAclRequest, context: Any) -> pb.GetAclResponse:
        return pb.GetAclResponse(acl=self._shown(self._acls.get(request.project, request.name)))

    async def ListAcls(self, request: pb.ListAclsRequest, context: Any) -> pb.ListAclsResponse:
        return pb.ListAclsResponse(acls=[self._shown(e) for e in self._acls.entries(request.project)])

    async def UpdateAcl(self, request: pb.UpdateAclRequest, context: Any) -> pb.UpdateAclResponse:
        wanted = _record(request.acl)
        entry = await self._acls.update(
            wanted.project, wanted.name, wanted, expected_revision=request.expected_revision
        )
        return pb.UpdateAclResponse(acl=self._shown(entry))

    async def RenameAcl(self, request: pb.RenameAclRequest, context: Any) -> pb.RenameAclResponse:
        entry = await self._acls.rename(request.project, request.name, request.new_name)
        return pb.RenameAclResponse(acl=self._shown(entry))

    async def DeleteAcl(self, request: pb.DeleteAclRequest, context: Any) -> pb.DeleteAclResponse:
        await self._acls.delete(request.project, request.name)
        return pb.DeleteAclResponse()

    async def GetAclLog(self, request: pb.GetAclLogRequest, context: Any) -> pb.GetAclLogResponse:
        acl = self._acls.get(request.project, request.name).record
        return pb.GetAclLogResponse(lines=await self._host.logged(acl.id))

    def _shown(self, entry: Entry[NetworkAcl]) -> pb.Acl:
        r = entry.record
        return pb.Acl(
            project=r.project,
            name=r.name,
            description=r.description,
            config=r.config,
            ingress=[pb.AclRule(**asdict(rule)) for rule in r.ingress],
            egress=[pb.AclRule(**asdict(rule)) for rule in r.egress],
            used_by=self._acls.users(r),
            revision=entry.revision,
        )


def _record(acl: pb.Acl) -> NetworkAcl:
    return NetworkAcl(
        project=acl.project,
        name=acl.name,
        description=acl.description,
        config=dict(acl.config),
        ingress=_rules(acl.ingress),
        egress=_rules(acl.egress),
    )


def _rules(rules: Iterable[pb.AclRule]) -> tuple[AclRule, ...]:
    return tuple(AclRule(**{f.name: getattr(rule, f.name) for f in fields(AclRule)}) for rule in rules)
