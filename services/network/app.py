"""Wire the network service; the only file that names concrete classes."""

from __future__ import annotations

import asyncio

import grpc

from core.logs import get_logger
from core.service import member_service
from protos.podium.network.v1 import network_pb2_grpc as rpc
from services.network.kernel.host import LinuxHost, forward_is_blocked
from services.network.servicer.services import NetworkServicer, NicServicer
from services.network.store import NetworkStore
from services.network.usecases.networks import Networks
from services.network.usecases.nics import Nics

log = get_logger(__name__)
_RECONCILE_EVERY_S = 30.0


async def main() -> None:
    async with member_service("network") as service:
        store, runner = NetworkStore(service.etcd), service.runner()
        host = LinuxHost(service.settings.state_dir / "networks")
        service.at_end(host.close)
        await service.start(store)
        networks, nics = Networks(store, host), Nics(store, host)
        await service.start(runner)
        await networks.reconcile()

        def register(server: grpc.aio.Server) -> list[str]:
            rpc.add_NetworkServiceServicer_to_server(NetworkServicer(networks, store, host), server)
            rpc.add_NicServiceServicer_to_server(NicServicer(nics), server)
            return ["podium.network.v1.NetworkService", "podium.network.v1.NicService"]

        await service.serve(register, runner)
        await _keep(networks)


async def _keep(networks: Networks) -> None:
    """Mend drift for ever: a rule deleted by hand returns, a dead dnsmasq is started again."""
    while True:
        try:
            if await forward_is_blocked():
                log.warning("forward_policy_drop", hint="another program (Docker?) drops forwarded traffic")
            await asyncio.sleep(_RECONCILE_EVERY_S)
            await networks.reconcile()
        except Exception as exc:  # etcd away, nft hung: the next round tries again
            log.warning("reconcile_failed", error=str(exc) or repr(exc))
            await asyncio.sleep(1)
