"""Wire pools and custom volumes: what works on them, and what serves it. A part of app.py."""

from __future__ import annotations

from pathlib import Path

from core.operations.runner import Runner
from core.service import Servicers
from protos.podium.runtime.v1 import (
    recover_pb2_grpc,
    storage_pb2_grpc,
    volume_pb2_grpc,
    volumebackup_pb2_grpc,
)
from services.runtime.servicer.recover import RecoverServicer
from services.runtime.servicer.storage import StorageServicer
from services.runtime.servicer.volumebackups import VolumeBackupServicer
from services.runtime.servicer.volumes import VolumeServicer
from services.runtime.usecases.host import Host
from services.runtime.usecases.instances.schedules import Schedules
from services.runtime.usecases.notes import Notes
from services.runtime.usecases.policy import Policy
from services.runtime.usecases.pools.pools import Pools
from services.runtime.usecases.pools.recover import Recover
from services.runtime.usecases.transfers.backups import Backups
from services.runtime.usecases.transfers.pack import Packs
from services.runtime.usecases.transfers.voyages import Voyages
from services.runtime.usecases.transfers.wire import Transit
from services.runtime.usecases.volumes.archives import VolumeArchives
from services.runtime.usecases.volumes.backups import VolumeBackups
from services.runtime.usecases.volumes.claims import VolumeClaims
from services.runtime.usecases.volumes.copies import VolumeCopies
from services.runtime.usecases.volumes.custom import Volumes
from services.runtime.usecases.volumes.imports import VolumeImports
from services.runtime.usecases.volumes.landings import VolumeLandings
from services.runtime.usecases.volumes.schedules import VolumeSchedules
from services.runtime.usecases.volumes.snapshots import VolumeSnapshots
from services.runtime.usecases.volumes.voyages import VolumeVoyages


class Custom:
    def __init__(
        self, host: Host, policy: Policy, pools: Pools, runner: Runner, state_dir: Path, member: str
    ) -> None:
        self._host = host
        self._pools = pools
        self._policy = policy
        self._claims = VolumeClaims(host.store, runner)
        self._volumes = Volumes(host, policy, self._claims)
        self._snapshots = VolumeSnapshots(host, policy, self._claims, self._volumes)
        self._copies = VolumeCopies(host, self._claims, self._volumes)
        self._member = member
        self._recover = Recover(host, policy, state_dir, member)
        self.notes = Notes(host, member)

    def travel_with(
        self, packs: Packs, backups: Backups, voyages: Voyages, transit: Transit
    ) -> VolumeVoyages:
        """Keep and move archives of volumes as those of instances. To be called before the runner starts."""
        archives = VolumeArchives(self._host, self._volumes, packs)
        own = VolumeBackups(self._host, self._policy, self._claims, self._volumes, archives, backups)
        imports = VolumeImports(self._host, self._policy, self._claims, self._volumes, self._copies)
        self._backups = VolumeBackupServicer(own, imports, self._claims.runner)
        landings = VolumeLandings(self._host, self._volumes, self._copies, imports, voyages, transit)
        return VolumeVoyages(voyages, self._volumes, self._snapshots, archives, imports, landings, transit)

    def keep_with(self, schedules: Schedules) -> None:
        """Have the schedules of volumes kept whenever those of instances are."""
        own = VolumeSchedules(self._host.store, self._claims, self._snapshots, self._member)
        schedules.also.append(own.keep)

    def serve(self, servicers: Servicers) -> None:
        servicer = VolumeServicer(self._host, self._claims, self._volumes, self._snapshots, self._copies)
        servicers.add(volume_pb2_grpc.add_VolumeServiceServicer_to_server, servicer)
        servicers.add(volumebackup_pb2_grpc.add_VolumeBackupServiceServicer_to_server, self._backups)
        found = RecoverServicer(self._recover)
        servicers.add(recover_pb2_grpc.add_RecoverServiceServicer_to_server, found)
        pools = StorageServicer(self._pools, self._host)
        servicers.add(storage_pb2_grpc.add_StorageServiceServicer_to_server, pools)
