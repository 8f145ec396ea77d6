"""Wire the room that moves whole instances out and in: images, backups, other servers. A part of app.py."""

from __future__ import annotations

from dataclasses import dataclass, field

from core.operations.runner import Runner
from core.service import Servicers
from core.settings import Settings
from protos.podium.runtime.v1 import transfer_pb2_grpc
from services.runtime.custom import Custom
from services.runtime.kernel.transit import RsyncTransit
from services.runtime.servicer.carriers import Carriers
from services.runtime.servicer.transfer import TransferServicer
from services.runtime.usecases.claims import Claims
from services.runtime.usecases.host import Host
from services.runtime.usecases.instances.abouts import AboutInstances
from services.runtime.usecases.instances.create import Create
from services.runtime.usecases.policy import Policy
from services.runtime.usecases.transfers.archive import Archives
from services.runtime.usecases.transfers.arrive import Arrivals
from services.runtime.usecases.transfers.backups import Backups
from services.runtime.usecases.transfers.departures import Departures
from services.runtime.usecases.transfers.landings import Landings
from services.runtime.usecases.transfers.pack import Packs
from services.runtime.usecases.transfers.voyages import Voyages
from services.runtime.usecases.transfers.wire import Transit
from services.runtime.usecases.volumes.voyages import VolumeVoyages


@dataclass(frozen=True)
class Transfers:
    """Made before the runner starts, since it registers stories."""

    runner: Runner
    policy: Policy
    packs: Packs
    backups: Backups
    arrivals: Arrivals
    voyages: Voyages
    transit: Transit
    departures: Departures
    landings: Landings
    volumes: list[VolumeVoyages] = field(default_factory=list)

    @classmethod
    def wired(
        cls,
        host: Host,
        policy: Policy,
        claims: Claims,
        create: Create,
        abouts: AboutInstances,
        settings: Settings,
    ) -> Transfers:
        packs = Packs(host, settings.state_dir)
        archives = Archives(host, packs, abouts)
        backups = Backups(host, policy, archives, claims.runner, settings.state_dir / "backups")
        arrivals = Arrivals(host, policy, claims, create, settings.member)
        voyages = Voyages(host, archives, arrivals, claims.runner)
        transit = RsyncTransit()
        departures = Departures(host.store, archives, transit)
        landings = Landings(host, arrivals, voyages, transit, abouts)
        return cls(claims.runner, policy, packs, backups, arrivals, voyages, transit, departures, landings)

    def carry_volumes(self, custom: Custom) -> None:
        """Let custom volumes be kept and sent as instances are."""
        self.volumes.append(custom.travel_with(self.packs, self.backups, self.voyages, self.transit))

    def serve(self, servicers: Servicers) -> None:
        carriers = Carriers(self.voyages, self.volumes[0], self.departures, self.landings, self.runner)
        servicer = TransferServicer(
            self.packs, self.backups, self.arrivals, carriers, self.policy, self.runner
        )
        servicers.add(transfer_pb2_grpc.add_TransferServiceServicer_to_server, servicer)
