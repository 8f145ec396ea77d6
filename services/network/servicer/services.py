"""The gRPC face: convert, call, convert."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

from core.configkeys.nic import IPVLAN, PHYSICAL
from core.errors import NotFound, Unsupported
from core.records import Network, NicReservation
from core.state import keys
from core.state.repository import Entry
from protos.podium.network.v1 import network_pb2 as pb
from protos.podium.network.v1 import network_pb2_grpc as rpc
from services.network.domain import allocations
from services.network.domain.addresses import subnets_of
from services.network.domain.allocations import Allocation
from services.network.domain.hostside import addresses_of, gateway_of
from services.network.domain.parents import link_of
from services.network.domain.shaping import Rates, rates_of
from services.network.domain.told import told
from services.network.domain.volatile import volatile_of
from services.network.ports import Host, Link
from services.network.store import NetworkStore
from services.network.usecases.networks import Networks
from services.network.usecases.nics import Nics, Owner, Wanted
from services.network.usecases.wellbeing import on_members

_NO_LINK = 'Network interface "{}" not found'
_TYPES = {"bridge": "bridge", "": "physical", "bond": "bond", "vlan": "vlan"}
# What these need is done by who may enter the instance: its namespace kept, or refused while it runs.
_PREPARED = (PHYSICAL, IPVLAN)


class NetworkServicer(rpc.NetworkServiceServicer):
    def __init__(self, networks: Networks, nics: Nics, store: NetworkStore, host: Host) -> None:
        self._networks = networks
        self._nics = nics
        self._store = store
        self._host = host

    def _shown(self, entry: Entry[Network]) -> pb.Network:
        r = self._networks.shown(entry.record)
        return pb.Network(
            name=r.name,
            project=r.project,
            type=r.type,
            description=r.description,
            config=r.config,
            managed=True,
            status=r.status,
            used_by=self._networks.users(r.name),
            error=r.error,
            revision=entry.revision,
            locations=sorted([self._store.member, *others]) if (others := self._store.others()) else (),
        )

    async def CreateNetwork(self, request: pb.CreateNetworkRequest, context: Any) -> pb.CreateNetworkResponse:
        wanted = Network(request.name, "default", request.type, request.description, dict(request.config))
        return pb.CreateNetworkResponse(network=self._shown(await self._networks.create(wanted)))

    async def GetNetwork(self, request: pb.GetNetworkRequest, context: Any) -> pb.GetNetworkResponse:
        if entry := self._networks.find(request.name):
            return pb.GetNetworkResponse(network=self._shown(entry))
        return pb.GetNetworkResponse(network=_unmanaged(await self._link(request.name)))

    async def ListNetworks(self, request: pb.ListNetworksRequest, context: Any) -> pb.ListNetworksResponse:
        found = [self._shown(entry) for entry in self._networks.entries()]
        managed = {network.name for network in found}
        links = [
            link for link in await self._host.links() if link.name not in managed and link.kind != "veth"
        ]
        found += [_unmanaged(link) for link in links]
        return pb.ListNetworksResponse(networks=sorted(found, key=lambda n: n.name))

    async def UpdateNetwork(self, request: pb.UpdateNetworkRequest, context: Any) -> pb.UpdateNetworkResponse:
        entry = await self._networks.update(
            request.name,
            dict(request.config),
            request.description,
            merge=request.merge,
            expected_revision=request.expected_revision,
        )
        await self._nics.refresh()
        return pb.UpdateNetworkResponse(network=self._shown(entry))

    async def RenameNetwork(self, request: pb.RenameNetworkRequest, context: Any) -> pb.RenameNetworkResponse:
        entry = await self._networks.rename(request.name, request.new_name)
        return pb.RenameNetworkResponse(network=self._shown(entry))

    async def DeleteNetwork(self, request: pb.DeleteNetworkRequest, context: Any) -> pb.DeleteNetworkResponse:
        await self._networks.delete(request.name)
        return pb.DeleteNetworkResponse()

    async def GetNetworkState(
        self, request: pb.GetNetworkStateRequest, context: Any
    ) -> pb.GetNetworkStateResponse:
        state = _state(await self._link(request.name, _NO_LINK))
        for found in on_members(self._store, self._networks, request.name):
            state.members.add(member=found.member, status=found.status, error=found.error)
        return pb.GetNetworkStateResponse(state=state)

    async def ListAllocations(
        self, request: pb.ListAllocationsRequest, context: Any
    ) -> pb.ListAllocationsResponse:
        told = [a for e in self._networks.entries() for a in self._allocations(e)]
        is_cluster = bool(self._store.others())
        found = [pb.Allocation(**asdict(a if is_cluster else replace(a, location=""))) for a in told]
        return pb.ListAllocationsResponse(allocations=found)

    def _allocations(self, entry: Entry[Network]) -> Iterator[Allocation]:
        network, store = entry.record, self._store
        forwards = store.forwards.below(keys.network_forwards(network.name))
        balancers = store.balancers.below(keys.load_balancers(network.name))
        claims = (e.record for e in store.addresses.below(keys.addresses(network.name)))
        yield from allocations.of_network(
            network,
            store.nics_on(network.name) if network.has_bridge else (),
            [e.record.listen_address for e in forwards],
            [e.record.listen_address for e in balancers],
            [claim for claim in claims if not claim.instance_id],
        )

    async def ListLeases(self, request: pb.ListLeasesRequest, context: Any) -> pb.ListLeasesResponse:
        network = self._networks.loaded(request.name)
        if not network.has_bridge:
            raise Unsupported("NO_LEASES", "Not implemented", about=network.name)
        subnets = subnets_of(network.config)
        own = [str(i.ip) for i in (subnets.ipv4, subnets.ipv6) if i]
        leases = [pb.Lease(hostname=f"{network.name}.gw", address=a, type="gateway") for a in own]
        for nic in self._store.nics_on(network.name):
            leases += _leases(nic, nic.member if self._store.others() else "")
        return pb.ListLeasesResponse(leases=leases)

    async def _link(self, name: str, what: str = "Network not found") -> Link:
        for link in await self._host.links():
            if link.name == name:
                return link
        raise NotFound("NO_NETWORK", what.format(name), about=name)


class NicServicer(rpc.NicServiceServicer):
    def __init__(self, nics: Nics) -> None:
        self._nics = nics

    async def ReserveNics(self, request: pb.ReserveNicsRequest, context: Any) -> pb.ReserveNicsResponse:
        wanted = [Wanted(n.device, dict(n.options), n.hwaddr) for n in request.nics]
        owner = Owner(request.instance_id, request.project, request.instance_name, request.at_rest)
        found = await self._nics.reserve(owner, wanted)
        answer = pb.ReserveNicsResponse(nics=[self._reserved(nic) for nic in found])
        if request.pid and not any(nic.nictype in _PREPARED for nic in found):
            made = await self._nics.plug(request.instance_id, request.pid)
            answer.plugged, answer.made[:] = True, [nic.name for nic in made]
        return answer

    def _reserved(self, nic: NicReservation) -> pb.NicPlan:
        plan = _plan(nic, self._nics.network_of(nic))
        plan.host_side = plan.host_side or self._nics.is_looped(nic)
        return plan

    async def ReleaseNics(self, request: pb.ReleaseNicsRequest, context: Any) -> pb.ReleaseNicsResponse:
        await self._nics.release(request.instance_id)
        return pb.ReleaseNicsResponse()

    async def PlugNics(self, request: pb.PlugNicsRequest, context: Any) -> pb.PlugNicsResponse:
        found = await self._nics.plug(request.instance_id, request.pid)
        return pb.PlugNicsResponse(nics=[_plan(nic) for nic in found])

    async def UnplugNics(self, request: pb.UnplugNicsRequest, context: Any) -> pb.UnplugNicsResponse:
        await self._nics.unplug(request.instance_id)
        return pb.UnplugNicsResponse()


def _unmanaged(link: Link) -> pb.Network:
    kind = "loopback" if link.is_loopback else _TYPES.get(link.kind, "unknown")
    return pb.Network(name=link.name, type=kind)


def _state(link: Link) -> pb.NetworkState:
    state = pb.NetworkState(
        hwaddr=link.hwaddr,
        mtu=link.mtu,
        is_up=link.is_up,
        type="loopback" if link.is_loopback else "broadcast",
        counters=pb.Counters(**link.counters),
    )
    for a in link.addresses:
        state.addresses.add(family=a.family, address=a.address, prefix=a.prefix, scope=a.scope)
    if link.kind == "bridge":
        state.bridge.id = "8000." + link.hwaddr.replace(":", "")
        state.bridge.upper_devices.extend(link.members)
        state.bridge.forward_delay_ms = link.forward_delay_cs * 10
    return state


def _leases(nic: NicReservation, member: str) -> list[pb.Lease]:
    kind = "static" if nic.is_static else "dynamic"
    return [
        pb.Lease(
            hostname=nic.instance_name,
            hwaddr=nic.hwaddr,
            address=a,
            type=kind,
            location=member or "none",
            project=nic.project,
        )
        for a in (nic.ipv4, nic.ipv6)
        if a
    ]


def _plan(nic: NicReservation, network: Network | None = None) -> pb.NicPlan:
    plan = pb.NicPlan(
        device=nic.device,
        name=nic.name,
        host_name=nic.host_name,
        hwaddr=nic.hwaddr,
        mtu=nic.mtu,
        bridge=nic.bridge,
        nictype=nic.nictype,
        parent=link_of(nic),
        host_side=nic.host_side or rates_of(nic) != Rates(),
        volatile=volatile_of(nic),
    )
    for family, address, prefix in _addresses(nic):
        plan.addresses.add(family=family, address=address, prefix=prefix, scope="global")
    plan.gateways.update({v: g for v in ("ipv4", "ipv6") if (g := gateway_of(nic, v))})
    plan.mode = nic.options.get("mode") or "l3s"
    if network and (said := told(network)):
        plan.told.CopyFrom(pb.Told(router=said.router, name_servers=said.name_servers, search=said.search))
    return plan


def _addresses(nic: NicReservation) -> list[tuple[str, str, int]]:
    rows = [("inet", nic.ipv4, nic.ipv4_prefix), ("inet6", nic.ipv6, nic.ipv6_prefix)]
    rows += [("inet", a, 32) for a in addresses_of(nic, "ipv4")]
    rows += [("inet6", a, 128) for a in addresses_of(nic, "ipv6")]
    return [row for row in rows if row[1]]
