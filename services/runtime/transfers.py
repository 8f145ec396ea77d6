"""Wire the room that moves whole instances out and in: images, backups, other servers. A part of app.py."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from core.operations.runner import Runner
from core.service import Servicers
from protos.podium.runtime.v1 import transfer_pb2_grpc
from services.runtime.servicer.transfer import TransferServicer
from services.runtime.usecases.abouts import AboutInstances
from services.runtime.usecases.archive import Archives
from services.runtime.usecases.backups import Backups
from services.runtime.usecases.host import Host
from services.runtime.usecases.pack import Packs


@dataclass(frozen=True)
class Transfers:
    """Made before the runner starts, since it registers stories."""

    runner: Runner
    packs: Packs
    backups: Backups

    @classmethod
    def wired(cls, host: Host, abouts: AboutInstances, runner: Runner, state_dir: Path) -> Transfers:
        packs = Packs(host, state_dir)
        archives = Archives(host, packs, abouts)
        return cls(runner, packs, Backups(host, archives, runner, state_dir / "backups"))

    def serve(self, servicers: Servicers) -> None:
        servicer = TransferServicer(self.packs, self.backups, self.runner)
        servicers.add(transfer_pb2_grpc.add_TransferServiceServicer_to_server, servicer)
