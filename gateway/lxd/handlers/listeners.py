"""Forwards and load balancers of networks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from aiohttp import web

from core.errors import PodiumError, error_of
from gateway.lxd import envelope
from gateway.lxd import request as req
from gateway.lxd.handlers.networkacls import objects
from gateway.lxd.handlers.networks import loading, visible
from gateway.lxd.nouns import Noun
from gateway.lxd.views.networks import (
    BACKEND_FIELDS,
    PORT_FIELDS,
    balancer_json,
    balancer_state_json,
    forward_json,
)
from protos.podium.network.v1 import listener_pb2 as pb


@contextlib.contextmanager
def _said(prefix: str) -> Iterator[None]:
    """Let a refusal begin as LXD begins it."""
    try:
        yield
    except PodiumError as exc:
        raise error_of(exc.kind, exc.reason, f"{prefix}: {exc.message}", exc.about) from None


def _network(request: web.Request) -> str:
    """Raises: NotFound, in the words that LXD has for what lies below a network."""
    with loading():
        return visible(request)


def _of(item: Any) -> str:
    return quote(str(item.listen_address), safe="")


def _one(request: web.Request) -> dict[str, str]:
    return {"network": _network(request), "listen_address": req.name(request, "address")}


def _writable(show: Any) -> Any:
    return lambda item: tuple(show(item).values())


async def _get_forward(request: web.Request) -> Any:
    message = pb.GetAddressForwardRequest(**_one(request))
    with loading():
        return (await req.backend(request).listeners.GetAddressForward(message)).forward


async def _get_balancer(request: web.Request) -> Any:
    message = pb.GetLoadBalancerRequest(**_one(request))
    return (await req.backend(request).listeners.GetLoadBalancer(message)).balancer


def _noun(request: web.Request, kind: Noun) -> Noun:
    """Return *kind* with the path of the network that a request names."""
    path = f"/1.0/networks/{quote(req.name(request), safe='')}/{kind.path}"
    return Noun(path, kind.get, kind.show, kind.writable, kind.of_project, kind.name)


_FORWARD = Noun("forwards", _get_forward, forward_json, _writable(forward_json), name=_of)
_BALANCER = Noun("load-balancers", _get_balancer, balancer_json, _writable(balancer_json), name=_of)
get_forward, get_balancer = _FORWARD.one, _BALANCER.one


# --- forwards ----------------------------------------------------------------------------------------


async def list_forwards(request: web.Request) -> web.Response:
    message = pb.ListAddressForwardsRequest(network=_network(request))
    with loading():
        reply = await req.backend(request).listeners.ListAddressForwards(message)
    return _noun(request, _FORWARD).listing(request, reply.forwards)


async def post_forward(request: web.Request) -> web.Response:
    data, network = await req.body(request), _network(request)
    with loading():
        await req.backend(request).listeners.ListAddressForwards(
            pb.ListAddressForwardsRequest(network=network)
        )
    message = pb.CreateAddressForwardRequest(
        forward=_forward(data, network, req.text(data, "listen_address"))
    )
    with _said("Failed creating forward"):
        reply = await req.backend(request).listeners.CreateAddressForward(message)
    return _noun(request, _FORWARD).created(_of(reply.forward))


async def put_forward(request: web.Request) -> web.Response:
    data, forward = await _FORWARD.wanted(request)
    message = pb.UpdateAddressForwardRequest(
        forward=_forward(data, forward.network, forward.listen_address), expected_revision=forward.revision
    )
    with _said("Failed updating forward"):
        await req.backend(request).listeners.UpdateAddressForward(message)
    return envelope.empty()


async def delete_forward(request: web.Request) -> web.Response:
    message = pb.DeleteAddressForwardRequest(**_one(request))
    with _said("Failed deleting forward"):
        await req.backend(request).listeners.DeleteAddressForward(message)
    return envelope.empty()


def _forward(data: dict[str, Any], network: str, address: str) -> pb.AddressForward:
    ports = [
        pb.AddressForwardPort(**{name: req.text(port, name) for name in PORT_FIELDS})
        for port in objects(data, "ports")
    ]
    return pb.AddressForward(
        network=network,
        listen_address=address,
        description=req.text(data, "description"),
        config=req.text_map(data, "config"),
        ports=ports,
    )


# --- load balancers ----------------------------------------------------------------------------------


async def list_balancers(request: web.Request) -> web.Response:
    message = pb.ListLoadBalancersRequest(network=_network(request))
    with loading():
        reply = await req.backend(request).listeners.ListLoadBalancers(message)
    return _noun(request, _BALANCER).listing(request, reply.balancers)


async def post_balancer(request: web.Request) -> web.Response:
    data, network = await req.body(request), _network(request)
    message = pb.CreateLoadBalancerRequest(
        balancer=_balancer(data, network, req.text(data, "listen_address"))
    )
    with _said("Failed creating load balancer"):
        reply = await req.backend(request).listeners.CreateLoadBalancer(message)
    return _noun(request, _BALANCER).created(_of(reply.balancer))


async def put_balancer(request: web.Request) -> web.Response:
    data, balancer = await _BALANCER.wanted(request)
    message = pb.UpdateLoadBalancerRequest(
        balancer=_balancer(data, balancer.network, balancer.listen_address),
        expected_revision=balancer.revision,
    )
    with _said("Failed updating load balancer"):
        await req.backend(request).listeners.UpdateLoadBalancer(message)
    return envelope.empty()


async def delete_balancer(request: web.Request) -> web.Response:
    message = pb.DeleteLoadBalancerRequest(**_one(request))
    with _said("Failed deleting load balancer"):
        await req.backend(request).listeners.DeleteLoadBalancer(message)
    return envelope.empty()


async def balancer_state(request: web.Request) -> web.Response:
    return envelope.sync(balancer_state_json(await _get_balancer(request)))


def _balancer(data: dict[str, Any], network: str, address: str) -> pb.LoadBalancer:
    ports = [
        pb.LoadBalancerPort(
            protocol=req.text(port, "protocol"),
            listen_port=req.text(port, "listen_port"),
            target_backend=req.texts(port, "target_backend"),
            description=req.text(port, "description"),
        )
        for port in objects(data, "ports")
    ]
    backends = [
        pb.LoadBalancerBackend(**{name: req.text(backend, name) for name in BACKEND_FIELDS})
        for backend in objects(data, "backends")
    ]
    return pb.LoadBalancer(
        network=network,
        listen_address=address,
        description=req.text(data, "description"),
        config=req.text_map(data, "config"),
        backends=backends,
        ports=ports,
    )
