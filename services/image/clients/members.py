"""The image services of other members, as the use cases want them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

from core.rpc.identity import as_ourselves
from core.rpc.members import dial
from core.settings import Settings
from core.state.store import Store
from protos.podium.image.v1 import copy_pb2 as pb
from protos.podium.image.v1 import copy_pb2_grpc as rpc
from services.image.ports import CopyFile
from services.image.servicer.messages import COPY_PART_NUMBERS, COPY_PARTS


class Members:
    """Implements ports.Peers. What callers may have was decided before: members are asked for ourselves."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self._settings = settings

    async def describe(self, member: str, fingerprint: str, *, hashed: bool) -> list[CopyFile]:
        async with self._stub(member) as stub:
            with as_ourselves():
                asked = pb.DescribeCopyRequest(fingerprint=fingerprint, hashed=hashed)
                answer = await stub.DescribeCopy(asked)
        return [CopyFile(COPY_PARTS[f.part], f.filename, f.size_bytes, f.sha256) for f in answer.files]

    async def read(
        self, member: str, fingerprint: str, part: str, offset: int
    ) -> AsyncGenerator[bytes, None]:
        asked = pb.ReadCopyRequest(fingerprint=fingerprint, part=COPY_PART_NUMBERS[part], offset=offset)
        async with self._stub(member) as stub:
            with as_ourselves():
                reading = stub.ReadCopy(asked)
                first = await anext(reading, None)
            async with aclosing(reading):
                if first is not None:
                    yield first.chunk
                async for answer in reading:
                    yield answer.chunk

    @asynccontextmanager
    async def _stub(self, member: str) -> AsyncIterator[Any]:
        line = await dial(self._store, self._settings, member=member, service="image")
        try:
            yield rpc.CopyServiceStub(line)
        finally:
            await line.close()
