"""Wire the room that makes instances of instances: snapshots, restores, copies, moves. A part of app.py."""

from __future__ import annotations

from dataclasses import dataclass

from core.service import Servicers
from protos.podium.runtime.v1 import snapshot_pb2_grpc
from services.runtime.servicer.snapshots import SnapshotServicer
from services.runtime.usecases.claims import Claims
from services.runtime.usecases.host import Host
from services.runtime.usecases.policy import Policy
from services.runtime.usecases.power import Power
from services.runtime.usecases.restore import Restore
from services.runtime.usecases.snapshots import Snapshots
from services.runtime.usecases.still import Stillness


@dataclass(frozen=True)
class Copying:
    """Made before the runner starts, since it registers stories."""

    host: Host
    claims: Claims
    snapshots: Snapshots
    restore: Restore

    @classmethod
    def wired(cls, host: Host, policy: Policy, claims: Claims, power: Power) -> Copying:
        still = Stillness(host)
        return cls(host, claims, Snapshots(host, policy, claims, still), Restore(host, policy, claims, power))

    def serve(self, servicers: Servicers) -> None:
        frozen = SnapshotServicer(self.host, self.snapshots, self.restore, self.claims)
        servicers.add(snapshot_pb2_grpc.add_SnapshotServiceServicer_to_server, frozen)
