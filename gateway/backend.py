"""What handlers work with: stubs of the services, and the few prefixes this process follows."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from typing import Any

from core.errors import NotFound
from core.membership import is_here
from core.operations.convert import from_proto
from core.operations.operation import Operation
from core.projects import home_of
from core.records import Certificate, Project
from core.rpc.client import channel
from core.settings import Settings
from core.state import codec, keys
from core.state.cache import Cache
from core.state.repository import Entry, entry_of
from core.state.store import Change, HistoryStore
from gateway.cluster import Cluster
from gateway.everywhere import RoutedInstances
from gateway.facts import FactsFollower
from gateway.lent import Lender, NoLender
from gateway.routing import Routed, RoutedCommands
from gateway.told import Told
from protos.podium.cluster.v1 import cluster_pb2_grpc as cluster
from protos.podium.cluster.v1 import join_pb2_grpc, warning_pb2_grpc
from protos.podium.common.v1 import common_pb2_grpc as common
from protos.podium.image.v1 import base_pb2_grpc, download_pb2_grpc, publish_pb2_grpc, share_pb2_grpc
from protos.podium.image.v1 import image_pb2_grpc as image
from protos.podium.network.v1 import acl_pb2_grpc, listener_pb2_grpc, zone_pb2_grpc
from protos.podium.network.v1 import network_pb2_grpc as network
from protos.podium.runtime.v1 import (
    about_pb2_grpc,
    copy_pb2_grpc,
    exec_pb2_grpc,
    files_pb2_grpc,
    guest_pb2_grpc,
    instance_pb2_grpc,
    power_pb2_grpc,
    previous_pb2_grpc,
    recover_pb2_grpc,
    remote_pb2_grpc,
    sftp_pb2_grpc,
    snapshot_pb2_grpc,
    storage_pb2_grpc,
    transfer_pb2_grpc,
    volume_pb2_grpc,
    volumebackup_pb2_grpc,
)

_KEEP_FINAL_S = 60.0
# What LXD says before "Project not found", by what was looked for in it.
_NO_PROJECT = {
    "images": "Check if project has images: fetch project: ",
    "profiles": "Failed loading {}: ",
    "storage.volumes": "Failed to load {}: ",
}


class Backend:
    """Stubs are typed Any: grpc's generated ones do not know the asynchronous channel's face."""

    def __init__(self, settings: Settings, store: HistoryStore) -> None:
        self.settings = settings
        self.store = store
        lines = {name: channel(settings, name) for name in ("cluster", "image", "runtime", "network")}
        self._lines = lines
        self.server: Any = cluster.ServerServiceStub(lines["cluster"])
        self.profiles: Any = cluster.ProfileServiceStub(lines["cluster"])
        self.projects: Any = cluster.ProjectServiceStub(lines["cluster"])
        self.trust: Any = cluster.TrustServiceStub(lines["cluster"])
        self.warnings: Any = warning_pb2_grpc.WarningServiceStub(lines["cluster"])
        self.joins: Any = join_pb2_grpc.JoinServiceStub(lines["cluster"])
        self.placement: Any = join_pb2_grpc.PlacementServiceStub(lines["cluster"])
        self.images: Any = image.ImageServiceStub(lines["image"])
        self.transfers: Any = transfer_pb2_grpc.TransferServiceStub(lines["runtime"])
        self.bases: Any = base_pb2_grpc.BaseServiceStub(lines["image"])
        self.downloads: Any = download_pb2_grpc.DownloadServiceStub(lines["image"])
        self.shares: Any = share_pb2_grpc.ShareServiceStub(lines["image"])
        self.publish: Any = publish_pb2_grpc.PublishServiceStub(lines["image"])
        self.networks: Any = network.NetworkServiceStub(lines["network"])
        self.acls: Any = acl_pb2_grpc.AclServiceStub(lines["network"])
        self.listeners: Any = listener_pb2_grpc.ListenerServiceStub(lines["network"])
        self.zones: Any = zone_pb2_grpc.ZoneServiceStub(lines["network"])
        self.instances: Any = instance_pb2_grpc.InstanceServiceStub(lines["runtime"])
        self.remote_create: Any = remote_pb2_grpc.RemoteCreateServiceStub(lines["runtime"])
        self.exec: Any = exec_pb2_grpc.ExecServiceStub(lines["runtime"])
        self.files: Any = files_pb2_grpc.FileServiceStub(lines["runtime"])
        self.abouts: Any = about_pb2_grpc.InstanceAboutServiceStub(lines["runtime"])
        self.sftp: Any = sftp_pb2_grpc.SftpServiceStub(lines["runtime"])
        self.previous: Any = previous_pb2_grpc.PreviousServiceStub(lines["runtime"])
        self.guests: Any = guest_pb2_grpc.GuestServiceStub(lines["runtime"])
        self.copies: Any = copy_pb2_grpc.CopyServiceStub(lines["runtime"])
        self.snapshots: Any = snapshot_pb2_grpc.SnapshotServiceStub(lines["runtime"])
        self.host_power: Any = power_pb2_grpc.HostPowerServiceStub(lines["runtime"])
        self.storage: Any = storage_pb2_grpc.StorageServiceStub(lines["runtime"])
        self.volumes: Any = volume_pb2_grpc.VolumeServiceStub(lines["runtime"])
        self.volume_backups: Any = volumebackup_pb2_grpc.VolumeBackupServiceStub(lines["runtime"])
        self.recover: Any = recover_pb2_grpc.RecoverServiceStub(lines["runtime"])
        self.operation_services: dict[str, Any] = {
            name: common.OperationServiceStub(line) for name, line in lines.items()
        }
        # Days of ended ones lie in the state; whoever asks for one of them is answered from there.
        self.operations: Cache[Operation] = Cache(
            store, Operation, keys.OPERATIONS, leave_out=lambda operation: operation.is_final
        )
        self.certificates: Cache[Certificate] = Cache(store, Certificate, keys.CERTIFICATES)
        self.project_cache: Cache[Project] = Cache(store, Project, keys.PROJECTS)
        self.facts = FactsFollower(settings, store, lines["runtime"], self.instances)
        self.told = Told()
        self.lender = Lender(settings.lending_socket, self.told)
        self.image_lender = Lender(settings.image_lending_socket)
        self._waiters: dict[str, set[asyncio.Event]] = {}
        self.cluster = Cluster(settings, store) if settings.cluster else None
        if self.cluster:
            self._route(self.cluster)

    def _route(self, cluster: Cluster) -> None:
        """Let what is about an instance be asked of its member."""

        async def runs_at(id: str) -> str:
            return (await self.operation(id)).member or cluster.here

        self.instances = RoutedInstances(cluster, instance_pb2_grpc.InstanceServiceStub, self.instances)
        self.exec = RoutedCommands(cluster, exec_pb2_grpc.ExecServiceStub, self.exec, runs_at)
        self.files = Routed(cluster, files_pb2_grpc.FileServiceStub, self.files)
        self.abouts = Routed(cluster, about_pb2_grpc.InstanceAboutServiceStub, self.abouts)
        self.sftp = Routed(cluster, sftp_pb2_grpc.SftpServiceStub, self.sftp)
        self.previous = Routed(cluster, previous_pb2_grpc.PreviousServiceStub, self.previous)
        self.copies = Routed(cluster, copy_pb2_grpc.CopyServiceStub, self.copies)
        self.snapshots = Routed(cluster, snapshot_pb2_grpc.SnapshotServiceStub, self.snapshots)
        self.transfers = Routed(cluster, transfer_pb2_grpc.TransferServiceStub, self.transfers)
        self.storage = Routed(cluster, storage_pb2_grpc.StorageServiceStub, self.storage)
        self.volumes = Routed(cluster, volume_pb2_grpc.VolumeServiceStub, self.volumes)
        kept = volumebackup_pb2_grpc.VolumeBackupServiceStub
        self.volume_backups = Routed(cluster, kept, self.volume_backups)
        self.remote_create = Routed(cluster, remote_pb2_grpc.RemoteCreateServiceStub, self.remote_create)

    async def start(self) -> None:
        for cache in (self.operations, self.certificates, self.project_cache):
            await cache.start()
        if self.cluster:
            await self.cluster.start()
        await self.facts.start()
        self.operations.on_change(self._heard)
        self.told.on_change(lambda operation: self._wake(operation.id))

    async def stop(self) -> None:
        for cache in (self.operations, self.certificates, self.project_cache):
            await cache.stop()
        if self.cluster:
            await self.cluster.stop()
        await self.facts.stop()
        self.lender.close()
        self.image_lender.close()
        for line in self._lines.values():
            await line.close()

    # --- operations ------------------------------------------------------------------------------

    def accepted(self, message: Any) -> Operation:
        """Take an operation from an answer into the cache, so that the next GET finds it."""
        operation = from_proto(message)
        key = keys.operation(operation.id)
        if message.revision:
            self.operations.apply(key, operation, message.revision)
        entry = self.operations.get(key)
        if entry is None and not message.revision:
            return self.told.begun(operation)
        return entry.record if entry else operation

    def heard(self, change: Change) -> None:
        """Take a change of an operation that another follower of the state knows already."""
        with contextlib.suppress(ValueError):
            if change.value is not None:
                self.operations.apply(change.key, codec.decode(Operation, change.value), change.revision)

    async def operation(self, id: str) -> Operation:
        """Raises: NotFound. Asks the state itself only for what this process has not seen yet."""
        if told := self.told.find(id):
            return told
        entry: Entry[Operation] | None = self.operations.get(keys.operation(id))
        if entry is None:
            found = await self.recorded(id)
            if found is None:
                raise NotFound("NO_OPERATION", "Operation not found", about=id)
            return found
        return entry.record

    async def recorded(self, id: str) -> Operation | None:
        """Return the operation as the state has it: with what no answer of a service tells."""
        kv = await self.store.get(keys.operation(id))
        return entry_of(Operation, kv).record if kv else None

    async def wait(self, id: str, timeout_s: float | None) -> Operation:
        """Return the operation when it is final, or as it is after *timeout_s*."""
        changed = asyncio.Event()
        self._waiters.setdefault(id, set()).add(changed)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    while not (await self.operation(id)).is_final:
                        changed.clear()
                        await changed.wait()
            return await self.operation(id)
        finally:
            self._waiters[id].discard(changed)
            if not self._waiters[id]:
                self._waiters.pop(id)

    def all_operations(self) -> list[Operation]:
        """Return those that run, and those that ended a moment ago."""
        told = {operation.id: operation for operation in self.told.all()}
        recorded = [e.record for e in self.operations.entries() if e.record.id not in told]
        return [*told.values(), *recorded]

    def _wake(self, id: str) -> None:
        for changed in self._waiters.get(id, ()):
            changed.set()

    def _heard(self, key: str, entry: Entry[Operation] | None) -> None:
        id = key.rsplit("/", 1)[-1]
        self._wake(id)
        if entry and entry.record.is_final:
            self.told.forget(id)
            # Whoever asks later is answered from the state itself; see operation().
            asyncio.get_running_loop().call_later(_KEEP_FINAL_S, self.operations.forget, key)

    # --- members -----------------------------------------------------------------------------------

    async def lender_for(self, project: str, name: str) -> Lender:
        """Return who lends pipes of an instance: descriptors go to nobody on another host."""
        if self.cluster and await self.cluster.member_of(project, name) != self.cluster.here:
            return NoLender()
        return self.lender

    def operation_service(self, operation: Operation) -> Any:
        """Return the stub by which an operation is cancelled. Raises: Unavailable when its member is away."""
        if self.cluster and not is_here(operation.member, self.cluster.here):
            return common.OperationServiceStub(self.cluster.line(operation.member, operation.service))
        return self.operation_services[operation.service]

    # --- projects --------------------------------------------------------------------------------

    def project_config(self, project: str) -> Mapping[str, str]:
        """Return the keys of a project; none of one that is not there."""
        entry = self.project_cache.get(keys.project(project))
        return entry.record.config if entry else {}

    def effective_project(self, project: str, feature: str) -> str:
        """Return *project*, or "default" when it shares that kind of object with it. Raises: NotFound."""
        try:
            return home_of(self.project_cache, project, feature)
        except NotFound as exc:
            said = _NO_PROJECT.get(feature, "").format(f'project "{project}"')
            raise NotFound(exc.reason, f"{said}{exc.message}", about=project) from None

    def require_project(self, project: str, words: str) -> None:
        """Raises: NotFound saying *words*."""
        if self.project_cache.get(keys.project(project)) is None:
            raise NotFound("NO_PROJECT", words, about=project[:64])

    def project_record(self, project: str) -> Project:
        """Raises: NotFound."""
        entry = self.project_cache.get(keys.project(project))
        if entry is None:
            raise NotFound(
                "NO_PROJECT", f'Failed to load project "{project}": Project not found', about=project
            )
        return entry.record


Handler = Callable[..., Any]
