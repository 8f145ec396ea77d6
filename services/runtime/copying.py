"""Wire the room that makes instances of instances: snapshots, restores, copies, moves. A part of app.py."""

from __future__ import annotations

from core.service import Servicers
from protos.podium.runtime.v1 import copy_pb2_grpc, snapshot_pb2_grpc
from services.runtime.ports import Ticks
from services.runtime.servicer.copies import CopyServicer
from services.runtime.servicer.snapshots import SnapshotServicer
from services.runtime.usecases.claims import Claims
from services.runtime.usecases.host import Host
from services.runtime.usecases.instances.copy import Copies
from services.runtime.usecases.instances.create import Create
from services.runtime.usecases.instances.move import Moves
from services.runtime.usecases.instances.rebuild import Rebuild
from services.runtime.usecases.instances.refresh import Refresh
from services.runtime.usecases.instances.restore import Restore
from services.runtime.usecases.instances.schedules import Schedules
from services.runtime.usecases.instances.snapshots import Snapshots
from services.runtime.usecases.instances.still import Stillness
from services.runtime.usecases.policy import Policy
from services.runtime.usecases.running.power import Power


class Copying:
    """To be made before the runner starts, since it registers stories."""

    def __init__(
        self,
        host: Host,
        policy: Policy,
        claims: Claims,
        power: Power,
        create: Create,
        ticks: Ticks,
        member: str,
    ) -> None:
        still = Stillness(host)
        self.snapshots = Snapshots(host, policy, claims, still)
        self.restore = Restore(host, policy, claims, power)
        self.copies = Copies(host, claims, create, still, member)
        self.refresh = Refresh(host, claims, self.copies, still)
        self.moves = Moves(host, policy, claims, create)
        self.rebuild = Rebuild(host, policy, claims, create)
        self.schedules = Schedules(host, claims, self.snapshots, ticks, member)
        power.before_start = self.schedules.before_start
        self._host = host
        self._claims = claims

    def serve(self, servicers: Servicers) -> None:
        frozen = SnapshotServicer(self._host, self.snapshots, self.restore, self._claims)
        servicers.add(snapshot_pb2_grpc.add_SnapshotServiceServicer_to_server, frozen)
        copies = CopyServicer(self._claims, self.copies, self.refresh, self.moves, self.rebuild)
        servicers.add(copy_pb2_grpc.add_CopyServiceServicer_to_server, copies)
