"""Wire the network service; the only file that names concrete classes."""

from __future__ import annotations

import asyncio

import grpc

from core.errors import PodiumError
from core.logs import get_logger
from core.metrics import REGISTRY
from core.rpc.warnings import WarningClient
from core.service import member_service
from protos.podium.network.v1 import acl_pb2_grpc as acl_rpc
from protos.podium.network.v1 import forward_pb2_grpc as forward_rpc
from protos.podium.network.v1 import listener_pb2_grpc as listener_rpc
from protos.podium.network.v1 import network_pb2_grpc as rpc
from protos.podium.network.v1 import zone_pb2_grpc as zone_rpc
from services.network.domain.conflicts import TYPES
from services.network.domain.render import PREFIX
from services.network.kernel.forwards import NftForwards
from services.network.kernel.host import LinuxHost
from services.network.kernel.rulewatch import RuleWatch
from services.network.kernel.zoneserver import ZoneServer
from services.network.servicer.acls import AclServicer
from services.network.servicer.forwards import ForwardServicer
from services.network.servicer.listeners import ListenerServicer
from services.network.servicer.services import NetworkServicer, NicServicer
from services.network.servicer.zones import ZoneServicer
from services.network.store import NetworkStore
from services.network.usecases.acls import Acls
from services.network.usecases.addresssets import AddressSets
from services.network.usecases.adoption import adopt
from services.network.usecases.backends import Backends, connects
from services.network.usecases.conflicts import Conflicts
from services.network.usecases.drift import Drift
from services.network.usecases.following import Following
from services.network.usecases.forwards import Forwarding
from services.network.usecases.listeners import Listeners, balancer_kind, forward_kind
from services.network.usecases.networks import Networks
from services.network.usecases.nics import Nics
from services.network.usecases.strays import Strays
from services.network.usecases.wellbeing import Gauges
from services.network.usecases.zones import Zones, ZoneServing

log = get_logger(__name__)
_SERVICES = ("Network", "Nic", "Forward", "Acl", "Listener", "Zone")
_LOOK_EVERY_S = 2.0
_RECONCILE_EVERY_S = 15.0


async def main() -> None:
    async with member_service("network") as service:
        store, runner = NetworkStore(service.etcd, service.settings.member), service.runner()
        host, warnings = (
            LinuxHost(service.settings.state_dir / "networks"),
            WarningClient(service.settings, TYPES),
        )
        service.at_end(host.close)
        service.at_end(warnings.close)
        await service.start(store)
        networks = Networks(store, host, service.settings.underlay)
        nics = Nics(store, host, networks.ensure_here)
        nft_forwards = NftForwards(service.settings.state_dir / "forwards")
        forwarding, drift = Forwarding(store, nft_forwards), Drift(store, networks, host, nft_forwards)
        watch = RuleWatch(PREFIX)
        service.at_end(watch.close)
        acls, sets = Acls(store, networks, host), AddressSets(store, networks, host)
        forwards = Listeners(store, networks, host, forward_kind(store))
        balancers = Listeners(store, networks, host, balancer_kind(store))
        backends = Backends(store, networks, connects)
        zones = Zones(store, networks)
        zone_server = ZoneServer(zones.answer)
        service.at_end(zone_server.close)
        serving = ZoneServing(store, zone_server)
        strays, conflicts = Strays(store, nics, host), Conflicts(networks, host, warnings, serving.troubles)
        following = Following(store, networks)
        REGISTRY.register(Gauges(store, networks))
        await service.start(runner)
        await adopt(store)
        await networks.reconcile()

        def register(server: grpc.aio.Server) -> list[str]:
            rpc.add_NetworkServiceServicer_to_server(NetworkServicer(networks, nics, store, host), server)
            rpc.add_NicServiceServicer_to_server(NicServicer(nics), server)
            forward_rpc.add_ForwardServiceServicer_to_server(ForwardServicer(forwarding), server)
            acl_rpc.add_AclServiceServicer_to_server(AclServicer(acls, sets, host), server)
            listener = ListenerServicer(forwards, balancers, store)
            listener_rpc.add_ListenerServiceServicer_to_server(listener, server)
            zone_rpc.add_ZoneServiceServicer_to_server(ZoneServicer(zones), server)
            return [f"podium.network.v1.{name}Service" for name in _SERVICES]

        await service.serve(register, runner)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_ask_backends(backends))
            tasks.create_task(serving.run())
            watch.open()
            tasks.create_task(following.run())
            tasks.create_task(_mend(watch, drift))
            await _keep(networks, nics, strays, forwarding, conflicts, drift)


async def _ask_backends(backends: Backends) -> None:
    while True:
        try:
            await backends.look()
        except Exception as exc:  # nft hung: the next look tries again
            log.warning("backends_not_asked", error=str(exc) or repr(exc))
        await asyncio.sleep(1)


async def _mend(watch: RuleWatch, drift: Drift) -> None:
    """Put back what is taken from the rules as soon as it is."""
    while True:
        tables = await watch.changed()
        try:
            await drift.mend(tables)
            log.info("rules_looked_after", tables=sorted(tables))
        except Exception as exc:  # it is tried again with the next look after everything
            log.warning("rules_not_mended", error=str(exc) or repr(exc))


async def _keep(
    networks: Networks,
    nics: Nics,
    strays: Strays,
    forwarding: Forwarding,
    conflicts: Conflicts,
    drift: Drift,
) -> None:
    """Mend drift for ever: what the kernel does not tell of at once, and a dead dnsmasq within seconds."""
    while True:
        try:
            await _look(conflicts)
            await _until_due(networks)
            await networks.reconcile()
            await nics.refresh()
            await strays.release()
            await forwarding.release_ended()
            await drift.mend_lone()
            await networks.ends.sweep()
        except Exception as exc:  # etcd away, nft hung: the next round tries again
            log.warning("reconcile_failed", error=str(exc) or repr(exc))
            await asyncio.sleep(1)


async def _look(conflicts: Conflicts) -> None:
    """Report what is in the way; a cluster service that is away must not keep anything from being mended."""
    try:
        await conflicts.look()
    except PodiumError as exc:
        log.warning("conflicts_not_reported", error=exc.message)


async def _until_due(networks: Networks) -> None:
    """Return when the next round is due, or sooner when a DNS server is gone."""
    end = asyncio.get_running_loop().time() + _RECONCILE_EVERY_S
    while asyncio.get_running_loop().time() < end and networks.all_serve():  # noqa: ASYNC110 - of another process
        await asyncio.sleep(_LOOK_EVERY_S)
