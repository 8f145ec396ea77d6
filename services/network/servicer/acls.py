"""The AclService: convert, call, convert."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, fields
from typing import Any

from core.netrecords import AclRule, AddressSet, NetworkAcl
from core.state.repository import Entry
from protos.podium.network.v1 import acl_pb2 as pb
from protos.podium.network.v1 import acl_pb2_grpc as rpc
from services.network.ports import Host
from services.network.usecases.acls import Acls
from services.network.usecases.addresssets import AddressSets


class AclServicer(rpc.AclServiceServicer):
    def __init__(self, acls: Acls, sets: AddressSets, host: Host) -> None:
        self._acls = acls
        self._sets = sets
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

    async def CreateAddressSet(
        self, request: pb.CreateAddressSetRequest, context: Any
    ) -> pb.CreateAddressSetResponse:
        return pb.CreateAddressSetResponse(set=self._shown_set(await self._sets.create(_set(request.set))))

    async def GetAddressSet(self, request: pb.GetAddressSetRequest, context: Any) -> pb.GetAddressSetResponse:
        return pb.GetAddressSetResponse(set=self._shown_set(self._sets.get(request.project, request.name)))

    async def ListAddressSets(
        self, request: pb.ListAddressSetsRequest, context: Any
    ) -> pb.ListAddressSetsResponse:
        found = self._sets.entries(request.project)
        return pb.ListAddressSetsResponse(sets=[self._shown_set(entry) for entry in found])

    async def UpdateAddressSet(
        self, request: pb.UpdateAddressSetRequest, context: Any
    ) -> pb.UpdateAddressSetResponse:
        wanted = _set(request.set)
        entry = await self._sets.update(
            wanted.project, wanted.name, wanted, expected_revision=request.expected_revision
        )
        return pb.UpdateAddressSetResponse(set=self._shown_set(entry))

    async def RenameAddressSet(
        self, request: pb.RenameAddressSetRequest, context: Any
    ) -> pb.RenameAddressSetResponse:
        entry = await self._sets.rename(request.project, request.name, request.new_name)
        return pb.RenameAddressSetResponse(set=self._shown_set(entry))

    async def DeleteAddressSet(
        self, request: pb.DeleteAddressSetRequest, context: Any
    ) -> pb.DeleteAddressSetResponse:
        await self._sets.delete(request.project, request.name)
        return pb.DeleteAddressSetResponse()

    def _shown_set(self, entry: Entry[AddressSet]) -> pb.AddressSet:
        r = entry.record
        return pb.AddressSet(
            project=r.project,
            name=r.name,
            description=r.description,
            config=r.config,
            addresses=r.addresses,
            used_by=self._sets.users(r),
            revision=entry.revision,
        )

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


def _set(found: pb.AddressSet) -> AddressSet:
    addresses = tuple(found.addresses)
    return AddressSet(found.project, found.name, found.description, dict(found.config), addresses)


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
