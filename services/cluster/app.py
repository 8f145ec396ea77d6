"""Wire the cluster service; the only file that names concrete classes."""

from __future__ import annotations

import platform

import grpc

from core.records import Member
from core.service import member_service
from protos.podium.cluster.v1 import cluster_pb2_grpc as rpc
from protos.podium.cluster.v1 import warning_pb2_grpc
from services.cluster import settings as own
from services.cluster.servicer.services import (
    ProfileServicer,
    ProjectServicer,
    ServerServicer,
    TrustServicer,
)
from services.cluster.servicer.warnings import WarningServicer
from services.cluster.store import ClusterStore
from services.cluster.usecases.admission import Admission
from services.cluster.usecases.members import Members
from services.cluster.usecases.profiles import Profiles
from services.cluster.usecases.projects import Projects
from services.cluster.usecases.server import Server
from services.cluster.usecases.trust import Trust
from services.cluster.usecases.warnings import Warnings


async def main() -> None:
    async with member_service("cluster") as service:
        store, runner = ClusterStore(service.etcd), service.runner()
        await service.start(store)
        admission = Admission(store)
        projects = Projects(store, admission, runner)
        await service.start(runner)
        mine, members = own.load(service.settings), Members(store)
        await members.record(Member(mine.member, service.settings.https_address, platform.machine()))

        def register(server: grpc.aio.Server) -> list[str]:
            rpc.add_ServerServiceServicer_to_server(ServerServicer(Server(store), members, mine), server)
            rpc.add_ProfileServiceServicer_to_server(ProfileServicer(Profiles(store, admission)), server)
            rpc.add_ProjectServiceServicer_to_server(ProjectServicer(projects, runner), server)
            trust = Trust(store, runner, mine.fingerprint)
            rpc.add_TrustServiceServicer_to_server(TrustServicer(trust, runner), server)
            warning_pb2_grpc.add_WarningServiceServicer_to_server(WarningServicer(Warnings(store)), server)
            names = ("Server", "Profile", "Project", "Trust", "Warning")
            return [f"podium.cluster.v1.{name}Service" for name in names]

        await service.serve(register, runner)
        await service.until_stopped()
