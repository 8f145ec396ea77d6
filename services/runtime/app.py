"""Wire the runtime service; the only file that names concrete classes."""

from __future__ import annotations

from functools import partial

from core.operations.runner import Runner
from core.rpc.warnings import WarningClient
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
from services.runtime.domain.unbounded import TYPES as UNENFORCED
from services.runtime.engine.lxc import LxcEngine
from services.runtime.inside import Inside
from services.runtime.kernel.boot import BootMarker
from services.runtime.kernel.cgroups import LinuxCgroups
from services.runtime.kernel.criu import Criu
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
from services.runtime.usecases.claims import Claims
from services.runtime.usecases.host import Host
from services.runtime.usecases.inside.exec import Execs
from services.runtime.usecases.instances.change import Changes
from services.runtime.usecases.instances.create import Create
from services.runtime.usecases.instances.follow import Follow
from services.runtime.usecases.instances.remote import RemoteCreate
from services.runtime.usecases.policy import Policy
from services.runtime.usecases.pools.copies import PoolCopies
from services.runtime.usecases.pools.pools import Pools
from services.runtime.usecases.running.balance import Balance
from services.runtime.usecases.running.boot import Boot
from services.runtime.usecases.running.freshfigures import FreshFigures
from services.runtime.usecases.running.health import HealthChecks
from services.runtime.usecases.running.hotplug import Hotplug
from services.runtime.usecases.running.power import Power
from services.runtime.usecases.running.reconcile import Reconcile
from services.runtime.usecases.running.revive import Revive
from services.runtime.usecases.running.shutdown import HostShutdown
from services.runtime.usecases.running.watch import Watch
from services.runtime.usecases.unbounded import Unbounded


async def main() -> None:
    async with member_service("runtime") as service:
        images, networks = ImageClient(service.settings), NetworkClient(service.settings)
        service.at_end(images.close)
        service.at_end(networks.close)
        events = HostEvents()
        host = _host(
            service.settings, RuntimeStore(service.etcd, service.settings.member), images, networks, events
        )
        runner = service.runner(host.store)
        rooms = _Rooms(service.settings, host, runner)
        await service.start(host.store)
        await rooms.pools.open_all()
        await rooms.pool_copies.open()
        await service.start(runner)
        service.at_end(rooms.warnings.close)
        service.at_end(rooms.execs.stop)
        service.at_end(rooms.watch.stop)
        await rooms.reconcile.adopt()
        for part in rooms.parts(events):
            await service.start(part)
        await service.serve(rooms.servicers(), runner)
        await service.until_stopped()


class _Rooms:
    """The use cases, each made once; what of them runs for as long as the service; and their servicers."""

    def __init__(self, settings: Settings, host: Host, runner: Runner) -> None:
        member = settings.member
        self.member, self.host, self.runner = member, host, runner
        self.warnings = WarningClient(settings, UNENFORCED)
        self.locate = partial(find, host, runner)
        self.watch = Watch(host.store, host.engine)

        def processes(id: str) -> int:
            return host.cgroups.usage(id).processes

        self.execs = Execs(self.locate, host.engine, runner, count=processes)
        self.lending = Lending(settings.lending_socket, self.execs)
        self.pools, self.pool_copies = Pools(host, runner, member), PoolCopies(host, member)
        self.claims, self.boots = Claims(host.store, runner), BootMarker(settings.state_dir)
        self.inside = Inside.wired(host)
        self.power = Power(host, self.claims, self.watch, self.inside.templates, member)
        policy = Policy(host, member)
        self.changes = Changes(host, policy, self.claims, member)
        self.follow = Follow(host, self.changes, member)
        self.custom = Custom(host, policy, self.pools, runner, settings.state_dir, member)
        self.create = Create(host, policy, self.claims, self.power, member)
        self.remote = RemoteCreate(host.store, host.images, self.create, self.power, self.changes, runner)
        ticks = TickMarker(settings.state_dir)
        self.copying = Copying(host, policy, self.claims, self.power, self.create, ticks, member)
        self.custom.keep_with(self.copying.schedules)
        self.transfers = Transfers.wired(host, policy, self.claims, self.create, self.inside.abouts, settings)
        self.transfers.carry_volumes(self.custom)
        self.reconcile = Reconcile(host, runner, self.watch, self.boots, member)

    def parts(self, events: HostEvents) -> list[Part]:
        """Return what runs, in the order in which it starts."""
        return [
            Boot(self.host, self.power, self.boots, self.member),
            self.follow,
            Hotplug(self.host, events, self.member),
            self.lending,
            self.transfers.backups,
            self.copying.schedules,
            self.custom.notes,
            Unbounded(self.host, self.warnings, self.member),
            self.pool_copies,
            *_keepers(self.host, self.power, self.member),
        ]

    async def _settled(self, project: str, name: str) -> Target:
        """Return an instance as it is once an outcome that clients may have read already is known here."""
        await self.claims.caught_up(project, name)
        return self.locate(project, name)

    def servicers(self) -> Servicers:
        found = Servicers("podium.runtime.v1")
        instances = InstanceServicer(
            self.host, self.create, self.power, self.changes, self.follow, self.claims
        )
        found.add(instance_pb2_grpc.add_InstanceServiceServicer_to_server, instances)
        remote = RemoteCreateServicer(self.remote, self.runner)
        found.add(remote_pb2_grpc.add_RemoteCreateServiceServicer_to_server, remote)
        commands = ExecServicer(
            self.execs, self.locate, self.runner, self.lending.lines, self.claims.caught_up
        )
        found.add(exec_pb2_grpc.add_ExecServiceServicer_to_server, commands)
        files = FileServicer(self.inside.roots, self._settled, self.lending.lines)
        found.add(files_pb2_grpc.add_FileServiceServicer_to_server, files)
        self.copying.serve(found)
        self.inside.serve(found, self._settled)
        self.transfers.serve(found)
        self.custom.serve(found)
        shutdown = HostShutdown(self.host, self.power, self.boots, self.member)
        found.add(power_pb2_grpc.add_HostPowerServiceServicer_to_server, HostPowerServicer(shutdown))
        return found


def _keepers(host: Host, power: Power, member: str) -> list[Part]:
    """Return what follows the records and keeps running instances as their keys ask for."""
    checks = HealthChecks(host, power, HostProbes(), member)
    return [Balance(host, member), Revive(host, power, member), checks, FreshFigures(host, member)]


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
        checkpoints=Criu(),
    )


def find(host: Host, runner: Runner, project: str, name: str) -> Target:
    """Return an instance as exec and files see it. Raises: NotFound, Unavailable for another member's."""
    instance = host.store.instance(project, name).record
    runner.require_own(instance.member, f"Instance {name!r}")
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
