"""The gRPC face of downloads: convert, call, convert."""

from __future__ import annotations

from typing import Any

from core.operations.runner import Runner
from core.operations.servicer import answer
from core.rpc.identity import current_identity
from protos.podium.common.v1.source_pb2 import RemoteSource as RemoteSourceMessage
from protos.podium.image.v1 import download_pb2 as pb
from protos.podium.image.v1 import download_pb2_grpc as rpc
from services.image.ports import RemoteSource
from services.image.servicer.messages import profiles_of
from services.image.usecases.downloads import Downloads, Wanted
from services.image.usecases.refresh import Refresh


class DownloadServicer(rpc.DownloadServiceServicer):
    def __init__(self, downloads: Downloads, refresh: Refresh, runner: Runner) -> None:
        self._downloads = downloads
        self._refresh = refresh
        self._runner = runner

    async def DownloadImage(self, request: pb.DownloadImageRequest, context: Any) -> pb.DownloadImageResponse:
        wanted = Wanted(
            project=request.project,
            source=_source(request.source),
            public=request.public,
            auto_update=request.auto_update,
            cached=request.cached,
            profiles=profiles_of(request),
            properties=dict(request.properties),
            aliases=tuple(request.aliases),
            asked_in=request.asked_in,
        )
        operation = await self._downloads.accept(wanted)
        return pb.DownloadImageResponse(operation=answer(self._runner, operation))

    async def RefreshImage(self, request: pb.RefreshImageRequest, context: Any) -> pb.RefreshImageResponse:
        operation = await self._refresh.accept(
            request.project, request.fingerprint, asked_in=request.asked_in
        )
        return pb.RefreshImageResponse(operation=answer(self._runner, operation))


def _source(message: RemoteSourceMessage) -> RemoteSource:
    """A caller who is confined to projects may not look around in this host's networks; nor may any URL."""
    is_confined = current_identity().projects is not None
    return RemoteSource(
        protocol=message.protocol,
        server=message.server,
        wanted=message.alias or message.fingerprint,
        by_alias=bool(message.alias),
        certificate=message.certificate,
        secret=message.secret,
        project=message.remote_project,
        may_reach_inside=not (is_confined or message.outside_only or message.protocol == "url"),
    )
