"""Wire the cluster service; the only file that names concrete classes."""

from __future__ import annotations

import platform

import grpc

from core.records import Member
from core.service import member_service
from core.settings import Settings
from core.state.etcdmembers import EtcdMembers
from protos.podium.cluster.v1 import cluster_pb2_grpc as rpc
from protos.podium.cluster.v1 import join_pb2_grpc, warning_pb2_grpc
from services.cluster import settings as own
from services.cluster.authority import Authority
from services.cluster.servicer.joins import JoinServicer, PlacementServicer
from services.cluster.servicer.services import (
    ProfileServicer,
    ProjectServicer,
    ServerServicer,
    TrustServicer,
)
from services.cluster.servicer.warnings import WarningServicer
from services.cluster.store import ClusterStore
from services.cluster.usecases.admission import Admission
from services.cluster.usecases.endpoints import Endpoints
from services.cluster.usecases.joins import Joins
from services.cluster.usecases.members import Members
from services.cluster.usecases.placement import Placement
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
        await members.record(_this_member(service.settings))
        await service.start(Endpoints(store.members, service.settings))
        authority = Authority(service.settings.tls_dir, service.settings.group)
        etcds = EtcdMembers(service.etcd)
        joins = Joins(store, runner, etcds, authority, service.settings, mine.fingerprint)
        await service.start(joins)

        def register(server: grpc.aio.Server) -> list[str]:
            rpc.add_ServerServiceServicer_to_server(ServerServicer(Server(store), members, mine), server)
            rpc.add_ProfileServiceServicer_to_server(ProfileServicer(Profiles(store, admission)), server)
            rpc.add_ProjectServiceServicer_to_server(ProjectServicer(projects, runner), server)
            trust = Trust(store, runner, mine.fingerprint)
            rpc.add_TrustServiceServicer_to_server(TrustServicer(trust, runner), server)
            warning_pb2_grpc.add_WarningServiceServicer_to_server(WarningServicer(Warnings(store)), server)
            join_pb2_grpc.add_JoinServiceServicer_to_server(JoinServicer(joins, runner), server)
            placement = PlacementServicer(Placement(store, service.settings.member))
            join_pb2_grpc.add_PlacementServiceServicer_to_server(placement, server)
            names = ("Server", "Profile", "Project", "Trust", "Warning", "Join", "Placement")
            return [f"podium.cluster.v1.{name}Service" for name in names]

        await service.serve(register, runner)
        await service.until_stopped()


def _this_member(settings: Settings) -> Member:
    """Return what this member says of itself. Who founds a cluster has the etcd that it began with."""
    cluster, machine = settings.cluster, platform.machine()
    if not cluster:
        return Member(settings.member, settings.https_address, machine)
    is_founder = cluster.etcd and not cluster.first_peers
    etcd = cluster.etcd_client if is_founder else ""
    return Member(settings.member, settings.url_address, machine, cluster.rpc, etcd, votes=is_founder)
