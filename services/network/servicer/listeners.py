"""The ListenerService: forwards and load balancers. Convert, call, convert."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import Any

from core.netrecords import Backend, BalancerPort, ForwardPort, NetworkForward, NetworkLoadBalancer
from core.state.repository import Entry
from protos.podium.network.v1 import listener_pb2 as pb
from protos.podium.network.v1 import listener_pb2_grpc as rpc
from services.network.domain.balancers import check_of
from services.network.store import NetworkStore
from services.network.usecases.listeners import Listeners


class ListenerServicer(rpc.ListenerServiceServicer):
    def __init__(
        self,
        forwards: Listeners[NetworkForward],
        balancers: Listeners[NetworkLoadBalancer],
        store: NetworkStore,
    ) -> None:
        self._forwards = forwards
        self._balancers = balancers
        self._store = store

    async def CreateAddressForward(
        self, request: pb.CreateAddressForwardRequest, context: Any
    ) -> pb.CreateAddressForwardResponse:
        entry = await self._forwards.create(_forward(request.forward))
        return pb.CreateAddressForwardResponse(forward=self._shown_forward(entry))

    async def GetAddressForward(
        self, request: pb.GetAddressForwardRequest, context: Any
    ) -> pb.GetAddressForwardResponse:
        entry = self._forwards.get(request.network, request.listen_address)
        return pb.GetAddressForwardResponse(forward=self._shown_forward(entry))

    async def ListAddressForwards(
        self, request: pb.ListAddressForwardsRequest, context: Any
    ) -> pb.ListAddressForwardsResponse:
        found = self._forwards.entries(request.network)
        return pb.ListAddressForwardsResponse(forwards=[self._shown_forward(entry) for entry in found])

    async def UpdateAddressForward(
        self, request: pb.UpdateAddressForwardRequest, context: Any
    ) -> pb.UpdateAddressForwardResponse:
        wanted = _forward(request.forward)
        entry = await self._forwards.update(
            wanted.network, wanted.listen_address, wanted, expected_revision=request.expected_revision
        )
        return pb.UpdateAddressForwardResponse(forward=self._shown_forward(entry))

    async def DeleteAddressForward(
        self, request: pb.DeleteAddressForwardRequest, context: Any
    ) -> pb.DeleteAddressForwardResponse:
        await self._forwards.delete(request.network, request.listen_address)
        return pb.DeleteAddressForwardResponse()

    async def CreateLoadBalancer(
        self, request: pb.CreateLoadBalancerRequest, context: Any
    ) -> pb.CreateLoadBalancerResponse:
        entry = await self._balancers.create(_balancer(request.balancer))
        return pb.CreateLoadBalancerResponse(balancer=self._shown_balancer(entry))

    async def GetLoadBalancer(
        self, request: pb.GetLoadBalancerRequest, context: Any
    ) -> pb.GetLoadBalancerResponse:
        entry = self._balancers.get(request.network, request.listen_address)
        return pb.GetLoadBalancerResponse(balancer=self._shown_balancer(entry))

    async def ListLoadBalancers(
        self, request: pb.ListLoadBalancersRequest, context: Any
    ) -> pb.ListLoadBalancersResponse:
        found = self._balancers.entries(request.network)
        return pb.ListLoadBalancersResponse(balancers=[self._shown_balancer(entry) for entry in found])

    async def UpdateLoadBalancer(
        self, request: pb.UpdateLoadBalancerRequest, context: Any
    ) -> pb.UpdateLoadBalancerResponse:
        wanted = _balancer(request.balancer)
        entry = await self._balancers.update(
            wanted.network, wanted.listen_address, wanted, expected_revision=request.expected_revision
        )
        return pb.UpdateLoadBalancerResponse(balancer=self._shown_balancer(entry))

    async def DeleteLoadBalancer(
        self, request: pb.DeleteLoadBalancerRequest, context: Any
    ) -> pb.DeleteLoadBalancerResponse:
        await self._balancers.delete(request.network, request.listen_address)
        return pb.DeleteLoadBalancerResponse()

    def _shown_forward(self, entry: Entry[NetworkForward]) -> pb.AddressForward:
        r = entry.record
        return pb.AddressForward(
            network=r.network,
            listen_address=r.listen_address,
            description=r.description,
            config=r.config,
            ports=[pb.AddressForwardPort(**asdict(port)) for port in r.ports],
            revision=entry.revision,
        )

    def _shown_balancer(self, entry: Entry[NetworkLoadBalancer]) -> pb.LoadBalancer:
        r = entry.record
        return pb.LoadBalancer(
            network=r.network,
            listen_address=r.listen_address,
            description=r.description,
            config=r.config,
            backends=[pb.LoadBalancerBackend(**asdict(b), health=self._health(r, b)) for b in r.backends],
            ports=[pb.LoadBalancerPort(**asdict(port)) for port in r.ports],
            revision=entry.revision,
        )

    def _health(self, balancer: NetworkLoadBalancer, backend: Backend) -> str:
        if not check_of(balancer):
            return ""
        name = balancer.network, balancer.listen_address, backend.name
        return "down" if name in self._store.down else "up"


def _forward(forward: pb.AddressForward) -> NetworkForward:
    ports = (ForwardPort(**{f.name: getattr(p, f.name) for f in fields(ForwardPort)}) for p in forward.ports)
    return NetworkForward(
        forward.network, forward.listen_address, forward.description, dict(forward.config), tuple(ports)
    )


def _balancer(balancer: pb.LoadBalancer) -> NetworkLoadBalancer:
    backends = (Backend(b.name, b.description, b.target_address, b.target_port) for b in balancer.backends)
    ports = (
        BalancerPort(p.protocol, p.listen_port, tuple(p.target_backend), p.description)
        for p in balancer.ports
    )
    return NetworkLoadBalancer(
        balancer.network,
        balancer.listen_address,
        balancer.description,
        dict(balancer.config),
        tuple(backends),
        tuple(ports),
    )
