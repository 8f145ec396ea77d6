"""The runtime, as the use cases want it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

import orjson

from core.rpc.client import channel
from core.settings import Settings
from protos.podium.runtime.v1 import about_pb2 as about
from protos.podium.runtime.v1 import about_pb2_grpc as about_rpc
from protos.podium.runtime.v1 import transfer_pb2 as pb
from protos.podium.runtime.v1 import transfer_pb2_grpc as rpc
from services.image.ports import About, Tell


class RuntimeClient:
    """Implements ports.Roots."""

    def __init__(self, settings: Settings) -> None:
        self._channel = channel(settings, "runtime")
        self._stub: Any = rpc.TransferServiceStub(self._channel)
        self._abouts: Any = about_rpc.InstanceAboutServiceStub(self._channel)

    async def pack(
        self,
        project: str,
        name: str,
        snapshot: str,
        *,
        compression: str,
        files: Mapping[str, bytes],
        tell: Tell,
    ) -> AsyncGenerator[bytes, None]:
        ref = pb.InstanceRef(project=project, name=name, snapshot=snapshot)
        request = pb.PackRootRequest(instance=ref, compression=compression, files=files)
        async with aclosing(self._stub.PackRoot(request)) as messages:
            async for message in messages:
                if message.WhichOneof("message") == "chunk":
                    yield message.chunk
                else:
                    await tell(f"{message.packed_bytes / 1e6:.2f}MB")

    async def about(self, project: str, name: str, snapshot: str) -> About:
        request = about.GetInstanceAboutRequest(project=project, name=name, snapshot=snapshot)
        answer = await self._abouts.GetInstanceAbout(request)
        return About(orjson.loads(answer.metadata_json or "{}"), dict(answer.templates))

    async def room(self, project: str) -> int | None:
        answer = await self._stub.GetRoom(pb.GetRoomRequest(project=project))
        return int(answer.bytes) if answer.HasField("bytes") else None

    async def close(self) -> None:
        await self._channel.close()
