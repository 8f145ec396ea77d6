"""Wire the network service; the only file that names concrete classes."""

from __future__ import annotations

import asyncio

import grpc

from core.logs import get_logger
from core.metrics import start_metrics
from core.operations.runner import Runner
from core.operations.servicer import NAME as OPERATIONS
from core.operations.servicer import OperationServicer
from core.process import take_lock
from core.rpc.server import serve
from core.settings import Settings
from core.state.etcd import EtcdStore
from protos.podium.common.v1 import common_pb2_grpc
from protos.podium.network.v1 import network_pb2_grpc as rpc
from services.network.kernel.host import LinuxHost, forward_is_blocked
from services.network.servicer.services import NetworkServicer, NicServicer
from services.network.store import NetworkStore
from services.network.usecases.networks import Networks
from services.network.usecases.nics import Nics

log = get_logger(__name__)
_RECONCILE_EVERY_S = 30.0


async def main() -> None:
    settings = Settings.from_env()
    lock = take_lock(settings, "network")
    start_metrics(settings.metrics_port("network"))
    etcd = EtcdStore(settings.etcd_endpoint, member=settings.member, service="network")
    store, host = NetworkStore(etcd), LinuxHost(settings.state_dir / "networks")
    runner = Runner(etcd, service="network", member=settings.member)
    await store.start()
    await runner.start()
    networks, nics = Networks(store, host), Nics(store, host)
    await networks.reconcile()

    def register(server: grpc.aio.Server) -> list[str]:
        rpc.add_NetworkServiceServicer_to_server(NetworkServicer(networks, store, host), server)
        rpc.add_NicServiceServicer_to_server(NicServicer(nics), server)
        common_pb2_grpc.add_OperationServiceServicer_to_server(OperationServicer(runner), server)
        return ["podium.network.v1.NetworkService", "podium.network.v1.NicService", OPERATIONS]

    server = await serve(settings, "network", register)
    try:
        await _keep(networks)
    finally:
        await server.stop(1)
        await runner.stop()
        await store.stop()
        await etcd.close()
        host.close()
        assert lock


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
