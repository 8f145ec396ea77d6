"""The gRPC face of instances' metadata and templates: convert, call, convert."""

from __future__ import annotations

from typing import Any

import orjson

from core.errors import Invalid
from core.records import Instance
from protos.podium.runtime.v1 import about_pb2 as pb
from protos.podium.runtime.v1 import about_pb2_grpc as rpc
from services.runtime.store import RuntimeStore
from services.runtime.usecases.instances.abouts import AboutInstances


class InstanceAboutServicer(rpc.InstanceAboutServiceServicer):
    def __init__(self, store: RuntimeStore, abouts: AboutInstances) -> None:
        self._store = store
        self._abouts = abouts

    def _instance(self, request: Any) -> Instance:
        return self._store.instance(request.project, request.name).record

    async def GetInstanceAbout(
        self, request: pb.GetInstanceAboutRequest, context: Any
    ) -> pb.GetInstanceAboutResponse:
        instance = self._instance(request)
        if request.snapshot:
            about = await self._abouts.of_snapshot(self._store.snapshot(instance, request.snapshot).record)
        else:
            about = await self._abouts.of(instance)
        metadata = orjson.dumps(about.metadata).decode() if about.metadata else ""
        return pb.GetInstanceAboutResponse(metadata_json=metadata, templates=about.templates)

    async def SetInstanceMetadata(
        self, request: pb.SetInstanceMetadataRequest, context: Any
    ) -> pb.SetInstanceMetadataResponse:
        try:
            wanted = orjson.loads(request.metadata_json or "{}")
        except ValueError:
            wanted = None
        if not isinstance(wanted, dict):
            raise Invalid("BAD_METADATA", "The metadata must be a map")
        await self._abouts.set_metadata(self._instance(request), wanted, merge=request.merge)
        return pb.SetInstanceMetadataResponse()

    async def WriteTemplate(self, request: pb.WriteTemplateRequest, context: Any) -> pb.WriteTemplateResponse:
        await self._abouts.write_template(self._instance(request), request.template, request.content)
        return pb.WriteTemplateResponse()

    async def DeleteTemplate(
        self, request: pb.DeleteTemplateRequest, context: Any
    ) -> pb.DeleteTemplateResponse:
        await self._abouts.delete_template(self._instance(request), request.template)
        return pb.DeleteTemplateResponse()
