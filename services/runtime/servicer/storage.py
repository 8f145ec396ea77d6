"""The gRPC face of storage pools: convert, call, convert."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from core.records import Pool
from core.state.repository import Entry
from protos.podium.runtime.v1 import storage_pb2 as pb
from protos.podium.runtime.v1 import storage_pb2_grpc as rpc
from services.runtime.domain.volumes import has_images, url
from services.runtime.usecases.host import Host
from services.runtime.usecases.pools.pools import Pools


class StorageServicer(rpc.StorageServiceServicer):
    def __init__(self, pools: Pools, host: Host) -> None:
        self._pools = pools
        self._host = host

    def _shown(self, entry: Entry[Pool]) -> pb.Pool:
        r = entry.record
        return pb.Pool(
            name=r.name,
            driver=r.driver,
            config=r.config,
            description=r.description,
            status=r.status,
            used_by=self._pools.users(r.name),
            error=r.error,
            revision=entry.revision,
        )

    async def CreatePool(self, request: pb.CreatePoolRequest, context: Any) -> pb.CreatePoolResponse:
        wanted = Pool(request.name, request.driver, request.description, dict(request.config))
        return pb.CreatePoolResponse(pool=self._shown(await self._pools.create(wanted)))

    async def GetPool(self, request: pb.GetPoolRequest, context: Any) -> pb.GetPoolResponse:
        return pb.GetPoolResponse(pool=self._shown(self._host.store.pool(request.name)))

    async def ListPools(self, request: pb.ListPoolsRequest, context: Any) -> pb.ListPoolsResponse:
        return pb.ListPoolsResponse(pools=[self._shown(e) for e in self._host.store.pools.entries()])

    async def UpdatePool(self, request: pb.UpdatePoolRequest, context: Any) -> pb.UpdatePoolResponse:
        entry = await self._pools.update(
            request.name,
            dict(request.config),
            request.description,
            merge=request.merge,
            expected_revision=request.expected_revision,
        )
        return pb.UpdatePoolResponse(pool=self._shown(entry))

    async def DeletePool(self, request: pb.DeletePoolRequest, context: Any) -> pb.DeletePoolResponse:
        await self._pools.delete(request.name)
        return pb.DeletePoolResponse()

    async def GetPoolResources(
        self, request: pb.GetPoolResourcesRequest, context: Any
    ) -> pb.GetPoolResourcesResponse:
        pool = self._host.store.pool(request.name).record
        space = await self._host.driver(pool.driver).space(pool.name)
        return pb.GetPoolResourcesResponse(
            space_used_bytes=space.used,
            space_total_bytes=space.total,
            inodes_used=space.inodes_used,
            inodes_total=space.inodes_total,
        )

    async def ListVolumes(self, request: pb.ListVolumesRequest, context: Any) -> pb.ListVolumesResponse:
        keeps_images = has_images(self._host.store.pool(request.pool).record)
        answer, images = pb.ListVolumesResponse(), set[str]()
        for entry in self._host.store.instances.entries():
            r = entry.record
            if r.pool == request.pool and (request.all_projects or r.project == request.project):
                used = url("instances", r.name, r.project)
                answer.volumes.add(name=r.name, type="container", project=r.project, used_by=[used])
                for s in self._host.store.whole_snapshots(r):
                    by = url(f"instances/{r.name}/snapshots", quote(s.name), r.project)
                    name = f"{r.name}/{s.name}"
                    answer.volumes.add(name=name, type="container", project=r.project, used_by=[by])
                    images.add(s.instance.image)
            if r.pool == request.pool and r.image:
                images.add(r.image)
        if keeps_images and (request.all_projects or request.project == "default"):
            for image in sorted(images - {""}):
                answer.volumes.add(name=image, type="image", project="default", used_by=[f"images/{image}"])
        return answer
