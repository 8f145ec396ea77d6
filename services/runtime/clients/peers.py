"""The other services this one calls, as the use cases want them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson

from core.operations.convert import from_proto
from core.rpc.client import channel
from core.rpc.identity import as_ourselves
from core.settings import Settings
from protos.podium.common.v1 import common_pb2 as common
from protos.podium.common.v1 import common_pb2_grpc as common_rpc
from protos.podium.common.v1 import source_pb2
from protos.podium.image.v1 import about_pb2 as pb
from protos.podium.image.v1 import about_pb2_grpc as about_rpc
from protos.podium.image.v1 import base_pb2 as base
from protos.podium.image.v1 import base_pb2_grpc as base_rpc
from protos.podium.image.v1 import download_pb2 as download
from protos.podium.image.v1 import download_pb2_grpc as download_rpc
from protos.podium.image.v1 import image_pb2 as image
from protos.podium.image.v1 import image_pb2_grpc as image_rpc
from protos.podium.network.v1 import forward_pb2 as forward
from protos.podium.network.v1 import forward_pb2_grpc as forward_rpc
from protos.podium.network.v1 import network_pb2 as network
from protos.podium.network.v1 import network_pb2_grpc as network_rpc
from services.runtime.domain.applications import Application
from services.runtime.domain.arrivals import Arrived, ArrivedEntry
from services.runtime.domain.devices.plan import Translation
from services.runtime.ports import NicPlan, Told
from services.runtime.usecases.peers import (
    About,
    FoundImage,
    PreparedImage,
    RemoteImage,
    Rendering,
    Reserved,
    Tell,
)

_PREPARE_S = 600.0
_RENDER_S = 60.0
_LOOK_EVERY_S = 0.2


class ImageClient:
    """Implements usecases.peers.Images."""

    def __init__(self, settings: Settings) -> None:
        self._channel = channel(settings, "image")
        self._stub: Any = image_rpc.ImageServiceStub(self._channel)
        self._abouts: Any = about_rpc.AboutServiceStub(self._channel)
        self._bases: Any = base_rpc.BaseServiceStub(self._channel)
        self._downloads: Any = download_rpc.DownloadServiceStub(self._channel)
        self._operations: Any = common_rpc.OperationServiceStub(self._channel)

    async def find(self, project: str, fingerprint: str, alias: str) -> FoundImage:
        ref = image.ImageRef(alias=alias) if alias else image.ImageRef(fingerprint=fingerprint)
        answer = await self._stub.GetImage(image.GetImageRequest(project=project, image=ref))
        return _found(answer.image)

    async def match(self, project: str, properties: Mapping[str, str]) -> FoundImage | None:
        answer = await self._stub.ListImages(image.ListImagesRequest(project=project))
        fits = [i for i in answer.images if all(i.properties.get(k) == v for k, v in properties.items())]
        newest = max(fits, key=lambda i: i.uploaded_at.ToNanoseconds(), default=None)
        return _found(newest) if newest else None

    async def prepare(self, project: str, fingerprint: str) -> PreparedImage:
        request = image.PrepareImageRequest(project=project, fingerprint=fingerprint)
        answer = await self._stub.PrepareImage(request, timeout=_PREPARE_S)
        return PreparedImage(Path(answer.squashfs_path), answer.rootfs_dir)

    async def about(self, project: str, fingerprint: str, base_dir: str) -> About:
        request = pb.GetAboutRequest(project=project, fingerprint=fingerprint, base_dir=base_dir)
        answer = await self._abouts.GetAbout(request, timeout=_PREPARE_S)
        return About(orjson.loads(answer.metadata_json or "{}"), dict(answer.templates))

    async def check_metadata(self, project: str, text: bytes) -> dict[str, Any]:
        request = pb.CheckMetadataRequest(project=project, text=text)
        answer = await self._abouts.CheckMetadata(request, timeout=_PREPARE_S)
        return dict(orjson.loads(answer.metadata_json))

    async def render(self, project: str, context: Mapping[str, Any], jobs: list[Rendering]) -> list[bytes]:
        request = pb.RenderTemplatesRequest(project=project, context_json=orjson.dumps(context).decode())
        for job in jobs:
            request.jobs.add(
                path=job.path,
                name=job.name,
                source=job.source,
                trigger=job.trigger,
                properties=job.properties,
            )
        answer = await self._abouts.RenderTemplates(request, timeout=_RENDER_S)
        return list(answer.texts)

    async def take(self, project: str, ticket: str) -> Arrived:
        answer = await self._bases.TakeBackup(base.TakeBackupRequest(project=project, ticket=ticket))
        snapshots = tuple(_entry(snapshot) for snapshot in answer.snapshots)
        return Arrived(answer.fingerprint, answer.pool, _entry(answer.instance), snapshots, answer.kind)

    async def bring(self, project: str, image: RemoteImage, tell: Tell) -> str:
        source = source_pb2.RemoteSource(**asdict(image))
        request = download.DownloadImageRequest(project=project, source=source, cached=True)
        operation = from_proto((await self._downloads.DownloadImage(request)).operation)
        while not operation.is_final:
            await asyncio.sleep(_LOOK_EVERY_S)
            asked = common.GetOperationRequest(id=operation.id)
            operation = from_proto((await self._operations.GetOperation(asked)).operation)
            if how_far := operation.metadata.get("download_progress"):
                await tell(str(how_far))
        if error := operation.error():
            raise error
        return str(operation.metadata["fingerprint"])

    async def close(self) -> None:
        await self._channel.close()


def _entry(message: Any) -> ArrivedEntry:
    return ArrivedEntry(
        name=message.name,
        base_dir=message.base_dir,
        shift=message.shift,
        description=message.description,
        architecture=message.architecture,
        ephemeral=message.ephemeral,
        profiles=tuple(message.profiles),
        config=dict(message.config),
        devices={name: dict(device.options) for name, device in message.devices.items()},
        created_at=message.created_at.ToNanoseconds() / 1e9,
        last_used_at=message.last_used_at.ToNanoseconds() / 1e9,
        expires_at=message.expires_at.ToNanoseconds() / 1e9,
    )


def _found(message: Any) -> FoundImage:
    application = None
    if message.HasField("application"):
        said = message.application
        application = Application(
            *(tuple(said.command), said.cwd, said.uid, said.gid, dict(said.environment), said.stop_signal)
        )
    return FoundImage(
        message.fingerprint,
        message.architecture,
        dict(message.properties),
        tuple(message.profiles),
        application,
    )


class NetworkClient:
    """Implements usecases.peers.Networks."""

    def __init__(self, settings: Settings) -> None:
        self._channel = channel(settings, "network")
        self._stub: Any = network_rpc.NicServiceStub(self._channel)
        self._forwards: Any = forward_rpc.ForwardServiceStub(self._channel)

    async def reserve(
        self,
        id: str,
        project: str,
        name: str,
        nics: Mapping[str, Mapping[str, str]],
        hwaddrs: Mapping[str, str],
        *,
        at_rest: bool,
        pid: int = 0,
    ) -> Reserved:
        request = network.ReserveNicsRequest(
            instance_id=id, project=project, instance_name=name, at_rest=at_rest, pid=pid
        )
        for device, options in nics.items():
            request.nics.add(device=device, options=options, hwaddr=hwaddrs.get(device, ""))
        answer = await self._stub.ReserveNics(request)
        made = tuple(answer.made) if answer.plugged else None
        return Reserved(tuple(_plan(nic) for nic in answer.nics), made)

    async def plug(self, id: str, pid: int) -> tuple[str, ...]:
        answer = await self._stub.PlugNics(network.PlugNicsRequest(instance_id=id, pid=pid))
        return tuple(nic.name for nic in answer.nics)

    async def unplug(self, id: str) -> None:
        await self._stub.UnplugNics(network.UnplugNicsRequest(instance_id=id))

    async def forward(self, id: str, translations: Sequence[Translation]) -> None:
        wanted = [
            forward.Forward(
                protocol=t.protocol,
                listen_address=t.listen,
                listen_ports=t.listen_ports,
                connect_address=t.connect,
                connect_ports=t.connect_ports,
            )
            for t in translations
        ]
        with as_ourselves():  # nobody else may: it is about the whole host
            await self._forwards.SetForwards(forward.SetForwardsRequest(instance_id=id, forwards=wanted))

    async def release(self, id: str) -> None:
        await self._stub.ReleaseNics(network.ReleaseNicsRequest(instance_id=id))

    async def close(self) -> None:
        await self._channel.close()


def _plan(nic: Any) -> NicPlan:
    return NicPlan(
        device=nic.device,
        name=nic.name,
        host_name=nic.host_name,
        hwaddr=nic.hwaddr,
        mtu=nic.mtu,
        bridge=nic.bridge,
        nictype=nic.nictype,
        parent=nic.parent,
        addresses=tuple(f"{a.address}/{a.prefix}" for a in nic.addresses),
        gateways=dict(nic.gateways),
        mode=nic.mode,
        host_side=nic.host_side,
        volatile=dict(nic.volatile),
        told=Told(nic.told.router, tuple(nic.told.name_servers), tuple(nic.told.search)),
    )
