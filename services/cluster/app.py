"""Wire the cluster service; the only file that names concrete classes."""

from __future__ import annotations

import asyncio

import grpc

from core.metrics import start_metrics
from core.operations.runner import Runner
from core.operations.servicer import NAME as OPERATIONS
from core.operations.servicer import OperationServicer
from core.process import take_lock
from core.rpc.server import serve
from core.settings import Settings
from core.state.etcd import EtcdStore
from protos.podium.cluster.v1 import cluster_pb2_grpc as rpc
from protos.podium.common.v1 import common_pb2_grpc
from services.cluster import settings as own
from services.cluster.servicer.services import (
    ProfileServicer,
    ProjectServicer,
    ServerServicer,
    TrustServicer,
)
from services.cluster.store import ClusterStore
from services.cluster.usecases.profiles import Profiles
from services.cluster.usecases.projects import Projects
from services.cluster.usecases.server import Server
from services.cluster.usecases.trust import Trust


async def main() -> None:
    settings = Settings.from_env()
    lock = take_lock(settings, "cluster")
    start_metrics(settings.metrics_port("cluster"))
    etcd = EtcdStore(settings.etcd_endpoint, member=settings.member, service="cluster")
    store = ClusterStore(etcd)
    runner = Runner(etcd, service="cluster", member=settings.member)
    await store.start()
    await runner.start()
    mine = own.load(settings)

    def register(server: grpc.aio.Server) -> list[str]:
        rpc.add_ServerServiceServicer_to_server(ServerServicer(Server(store), mine), server)
        rpc.add_ProfileServiceServicer_to_server(ProfileServicer(Profiles(store)), server)
        rpc.add_ProjectServiceServicer_to_server(ProjectServicer(Projects(store)), server)
        trust = Trust(store, runner, mine.fingerprint)
        rpc.add_TrustServiceServicer_to_server(TrustServicer(trust, runner), server)
        common_pb2_grpc.add_OperationServiceServicer_to_server(OperationServicer(runner), server)
        names = ("Server", "Profile", "Project", "Trust")
        return [*(f"podium.cluster.v1.{name}Service" for name in names), OPERATIONS]

    server = await serve(settings, "cluster", register)
    try:
        await asyncio.Event().wait()
    finally:
        await server.stop(1)
        await runner.stop()
        await store.stop()
        await etcd.close()
        assert lock
