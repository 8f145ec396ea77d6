"""Wire the runtime service; the only file that names concrete classes."""

from __future__ import annotations

from functools import partial

from core.service import Part, Servicers, member_service
from core.settings import Settings
from protos.podium.runtime.v1 import (
    exec_pb2_grpc,
    files_pb2_grpc,
    instance_pb2_grpc,
    power_pb2_grpc,
    remote_pb2_grpc,
)
from services.runtime.clients.peers import ImageClient, NetworkClient
from services.runtime.copying import Copying
from services.runtime.custom import Custom
from services.runtime.devices.events import HostEvents
from services.runtime.devices.facts import HostFacts
from services.runtime.devices.linux import LinuxDevices
from services.runtime.domain import idmaps
from services.runtime.domain.target import Target
from services.runtime.engine.lxc import LxcEngine
from services.runtime.inside import Inside
from services.runtime.kernel.boot import BootMarker
from services.runtime.kernel.cgroups import LinuxCgroups
from services.runtime.kernel.doors import GuestDoors
from services.runtime.kernel.guests import ProcGuests
from services.runtime.kernel.knows import HostKernel
from services.runtime.kernel.probes import HostProbes
from services.runtime.kernel.rootfs import LinuxRootFs
from services.runtime.kernel.ticks import TickMarker
from services.runtime.servicer.exec import ExecServicer
from services.runtime.servicer.files import FileServicer
from services.runtime.servicer.instances import InstanceServicer
from services.runtime.servicer.lending import Lending
from services.runtime.servicer.power import HostPowerServicer
from services.runtime.servicer.remote import RemoteCreateServicer
from services.runtime.storage.drivers import available
from services.runtime.store import RuntimeStore
from services.runtime.transfers import Transfers
from services.runtime.usecases.balance import Balance
from services.runtime.usecases.boot import Boot
from services.runtime.usecases.change import Changes
from services.runtime.usecases.claims import Claims
from services.runtime.usecases.create import Create
from services.runtime.usecases.exec import Execs
from services.runtime.usecases.follow import Follow
from services.runtime.usecases.health import HealthChecks
from services.runtime.usecases.host import Host
from services.runtime.usecases.hotplug import Hotplug
from services.runtime.usecases.policy import Policy
from services.runtime.usecases.pools import Pools
from services.runtime.usecases.power import Power
from services.runtime.usecases.reconcile import Reconcile
from services.runtime.usecases.remote import RemoteCreate
from services.runtime.usecases.revive import Revive
from services.runtime.usecases.shutdown import HostShutdown
from services.runtime.usecases.watch import Watch


async def main() -> None:
    async with member_service("runtime") as service:
        settings = service.settings
        images, networks = ImageClient(settings), NetworkClient(settings)
        service.at_end(images.close)
        service.at_end(networks.close)
        events = HostEvents()
        host = _host(settings, RuntimeStore(service.etcd), images, networks, events)
        runner = service.runner(host.store)
        watch = Watch(host.store, host.engine)
        locate = partial(find, host)
        execs = Execs(locate, host.engine, runner)
        pools = Pools(host, settings.member)
        claims, boots = Claims(host.store, runner), BootMarker(settings.state_dir)
        inside = Inside.wired(host)
        power = Power(host, claims, watch, inside.templates, settings.member)
        policy = Policy(host, settings.member)
        changes = Changes(host, policy, claims, settings.member)
        follow = Follow(host, changes, settings.member)
        custom = Custom(host, policy, pools, runner, settings.state_dir, settings.member)
        lending = Lending(settings.lending_socket, execs)
        create = Create(host, policy, claims, power, settings.member)
        ticks = TickMarker(settings.state_dir)
        copying = Copying(host, policy, claims, power, create, ticks, settings.member)
        custom.keep_with(copying.schedules)
        transfers = Transfers.wired(host, policy, claims, create, inside.abouts, settings)
        reconcile = Reconcile(host, runner, watch, boots, settings.member)
        await service.start(host.store)
        await pools.open_all()
        await service.start(runner)
        service.at_end(execs.stop)
        service.at_end(watch.stop)
        await reconcile.adopt()
        boot, hotplug = Boot(host, power, boots, settings.member), Hotplug(host, events, settings.member)
        parts: list[Part] = [boot, follow, hotplug, lending, transfers.backups, copying.schedules]
        for part in [*parts, custom.notes, *_keepers(host, power, settings.member)]:
            await service.start(part)
        servicers = Servicers("podium.runtime.v1")
        instances = InstanceServicer(host, create, power, changes, follow, claims)
        servicers.add(instance_pb2_grpc.add_InstanceServiceServicer_to_server, instances)
        commands = ExecServicer(execs, locate, runner, lending.lines)
        servicers.add(exec_pb2_grpc.add_ExecServiceServicer_to_server, commands)
        files = FileServicer(inside.roots, locate, lending.lines)
        servicers.add(files_pb2_grpc.add_FileServiceServicer_to_server, files)
        remote = RemoteCreate(host.store, images, create, power, changes, runner)
        servicers.add(
            remote_pb2_grpc.add_RemoteCreateServiceServicer_to_server, RemoteCreateServicer(remote, runner)
        )
        copying.serve(servicers)
        inside.serve(servicers, locate)
        transfers.serve(servicers)
        custom.serve(servicers)
        servicers.add(
            power_pb2_grpc.add_HostPowerServiceServicer_to_server,
            HostPowerServicer(HostShutdown(host, power, boots, settings.member)),
        )
        await service.serve(servicers, runner)
        await service.until_stopped()


def _keepers(host: Host, power: Power, member: str) -> list[Part]:
    """Return what follows the records and keeps running instances as their keys ask for."""
    checks = HealthChecks(host, power, HostProbes(), member)
    return [Balance(host, member), Revive(host, power, member), checks]


def _host(
    settings: Settings,
    store: RuntimeStore,
    images: ImageClient,
    networks: NetworkClient,
    events: HostEvents,
) -> Host:
    drivers, missing = available(settings.state_dir)
    return Host(
        store=store,
        engine=LxcEngine(settings.state_dir),
        rootfs=LinuxRootFs(settings.state_dir),
        cgroups=LinuxCgroups(),
        guests=ProcGuests(),
        kernel=HostKernel(),
        images=images,
        networks=networks,
        drivers=drivers,
        devices=LinuxDevices(settings.state_dir, events),
        facts=HostFacts(),
        missing_drivers=missing,
        doors=GuestDoors(settings.state_dir),
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
        idmap=idmaps.of(instance),
        config=host.expanded(instance).config,
        folder=host.engine.folder(instance.id),
    )
