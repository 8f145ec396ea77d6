"""Wire the runtime service; the only file that names concrete classes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

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
from protos.podium.runtime.v1 import exec_pb2_grpc, files_pb2_grpc, instance_pb2_grpc, storage_pb2_grpc
from services.runtime.clients.peers import ImageClient, NetworkClient
from services.runtime.domain.target import Target
from services.runtime.engine.lxc import LxcEngine
from services.runtime.kernel.cgroups import LinuxCgroups
from services.runtime.kernel.guests import ProcGuests
from services.runtime.kernel.rootfs import LinuxRootFs
from services.runtime.servicer.exec import ExecServicer
from services.runtime.servicer.files import FileServicer
from services.runtime.servicer.instances import InstanceServicer
from services.runtime.servicer.storage import StorageServicer
from services.runtime.storage.drivers import available
from services.runtime.store import RuntimeStore
from services.runtime.usecases.change import Changes
from services.runtime.usecases.claims import Claims
from services.runtime.usecases.create import Create
from services.runtime.usecases.exec import Execs
from services.runtime.usecases.files import Roots
from services.runtime.usecases.host import Host
from services.runtime.usecases.pools import Pools
from services.runtime.usecases.power import Power
from services.runtime.usecases.reconcile import Reconcile
from services.runtime.usecases.watch import Watch

log = get_logger(__name__)
Register = Callable[[grpc.aio.Server], list[str]]
_PACKAGE = "podium.runtime.v1"


async def main() -> None:
    settings = Settings.from_env()
    lock = take_lock(settings, "runtime")
    start_metrics(settings.metrics_port("runtime"))
    etcd = EtcdStore(settings.etcd_endpoint, member=settings.member, service="runtime")
    images, networks = ImageClient(settings), NetworkClient(settings)
    host = _host(settings, RuntimeStore(etcd), images, networks)
    await host.store.start()
    runner = Runner(host.store, service="runtime", member=settings.member)
    watch = Watch(host.store, host.engine)
    execs = Execs(lambda project, name: find(host, project, name), host.engine, runner)
    register = _wire(settings, host, runner, watch, execs)
    reconcile = Reconcile(host, runner, watch, settings.member)
    await reconcile.open_pools()
    await runner.start()
    await reconcile.adopt()
    server = await serve(settings, "runtime", register)
    try:
        await asyncio.Event().wait()
    finally:
        await server.stop(1)
        await watch.stop()
        await execs.stop()
        await runner.stop()
        await host.store.stop()
        await images.close()
        await networks.close()
        await etcd.close()
        assert lock


def _host(settings: Settings, store: RuntimeStore, images: ImageClient, networks: NetworkClient) -> Host:
    drivers, missing = available(settings.state_dir)
    return Host(
        store=store,
        engine=LxcEngine(settings.state_dir),
        rootfs=LinuxRootFs(settings.state_dir),
        cgroups=LinuxCgroups(),
        guests=ProcGuests(),
        images=images,
        networks=networks,
        drivers=drivers,
        missing_drivers=missing,
    )


def find(host: Host, project: str, name: str) -> Target:
    """Return an instance as exec and files see it. Raises: NotFound."""
    instance = host.store.instance(project, name).record
    observed = host.store.observed_of(instance).record
    return Target(
        id=instance.id,
        project=project,
        name=name,
        status=observed.status,
        pid=observed.pid,
        idmap_base=instance.idmap_base,
        idmap_size=instance.idmap_size,
        config=host.expanded(instance).config,
        folder=host.engine.folder(instance.id),
    )


def _wire(settings: Settings, host: Host, runner: Runner, watch: Watch, execs: Execs) -> Register:
    claims = Claims(host.store, runner)
    power = Power(host, claims, watch, settings.member)
    create = Create(host, claims, power, settings.member)
    changes = Changes(host, claims, settings.member)
    pools, roots = Pools(host, settings.member), Roots(host.store, host)

    def locate(project: str, name: str) -> Target:
        return find(host, project, name)

    def register(server: grpc.aio.Server) -> list[str]:
        instances = InstanceServicer(host, create, power, changes, runner)
        instance_pb2_grpc.add_InstanceServiceServicer_to_server(instances, server)
        exec_pb2_grpc.add_ExecServiceServicer_to_server(ExecServicer(execs, locate, runner), server)
        files_pb2_grpc.add_FileServiceServicer_to_server(FileServicer(roots, locate), server)
        storage_pb2_grpc.add_StorageServiceServicer_to_server(StorageServicer(pools, host), server)
        common_pb2_grpc.add_OperationServiceServicer_to_server(OperationServicer(runner), server)
        names = ("InstanceService", "ExecService", "FileService", "StorageService")
        return [*(f"{_PACKAGE}.{name}" for name in names), OPERATIONS]

    return register
