"""A real server and a real client over a unix socket: errors, identity, streams."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import weakref
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, ClassVar

import grpc
import pytest

from core.errors import Forbidden, Internal, NotFound, PodiumError, Unavailable
from core.rpc.client import channel
from core.rpc.identity import Identity, current_identity, set_identity
from core.rpc.server import serve
from core.settings import Settings
from protos.podium.common.v1 import common_pb2
from protos.podium.image.v1 import image_pb2 as pb
from protos.podium.image.v1 import image_pb2_grpc as rpc


class Work:
    """Lives as long as a call that was handled is held by anybody."""

    left: ClassVar[list[weakref.ref[Work]]] = []

    def __init__(self) -> None:
        self.left.append(weakref.ref(self))


class Servicer(rpc.ImageServiceServicer):
    async def GetImage(self, request: pb.GetImageRequest, context: Any) -> pb.GetImageResponse:
        work = Work()  # noqa: F841
        if request.project == "bug":
            raise KeyError("secret")
        if request.project == "none":
            raise NotFound("NO_IMAGE", "Image not found", about="x")
        return pb.GetImageResponse(image=pb.Image(project=current_identity().username))

    async def ExportImage(
        self, request: pb.ExportImageRequest, context: Any
    ) -> AsyncIterator[pb.ExportImageResponse]:
        yield pb.ExportImageResponse(chunk=b"x" * 100_000)
        raise NotFound("GONE", "It went away")

    async def UploadImage(
        self, request_iterator: AsyncIterator[pb.UploadImageRequest], context: Any
    ) -> pb.UploadImageResponse:
        count = 0
        async for message in request_iterator:
            if message.header.project == "none":
                raise NotFound("NO_PROJECT", "Project not found")
            count += 1
        return pb.UploadImageResponse(operation=common_pb2.Operation(id=str(count)))


@pytest.fixture
async def stub(tmp_path: Path) -> AsyncIterator[Any]:
    settings = Settings.from_env({"PODIUM_DIR": str(tmp_path)})
    settings.run_dir.mkdir()

    def register(server: grpc.aio.Server) -> list[str]:
        rpc.add_ImageServiceServicer_to_server(Servicer(), server)
        return ["podium.image.v1.ImageService"]

    server = await serve(settings, "image", register)
    line = channel(settings, "image")
    yield rpc.ImageServiceStub(line)
    await line.close()
    await server.stop(0)


async def test_identity_of_the_caller_arrives(stub: Any) -> None:
    set_identity(Identity("alice", "tls", "127.0.0.1:5"))
    reply = await stub.GetImage(pb.GetImageRequest())
    assert reply.image.project == "alice"


async def test_a_call_begins_once_all_is_known_that_its_caller_may_have_read(tmp_path: Path) -> None:
    """Who took a snapshot hears of it from the state, and restores it before the service knows."""
    settings, order = Settings.from_env({"PODIUM_DIR": str(tmp_path)}), list[str]()
    settings.run_dir.mkdir()

    async def settled() -> None:
        await asyncio.sleep(0)
        order.append("known")

    class Asked(Servicer):
        async def GetImage(self, request: pb.GetImageRequest, context: Any) -> pb.GetImageResponse:
            order.append("answered")
            return pb.GetImageResponse()

    def register(server: grpc.aio.Server) -> list[str]:
        rpc.add_ImageServiceServicer_to_server(Asked(), server)
        return ["podium.image.v1.ImageService"]

    server = await serve(settings, "image", register, settled=settled)
    line = channel(settings, "image")
    await rpc.ImageServiceStub(line).GetImage(pb.GetImageRequest())
    await line.close()
    await server.stop(0)

    assert order == ["known", "answered"]


async def test_errors_arrive_as_they_were_raised(stub: Any) -> None:
    with pytest.raises(NotFound) as caught:
        await stub.GetImage(pb.GetImageRequest(project="none"))
    assert (caught.value.reason, caught.value.message, caught.value.about) == (
        "NO_IMAGE",
        "Image not found",
        "x",
    )


async def test_a_refused_call_is_forgotten_at_once(stub: Any) -> None:
    """Its request may be of 64 MiB, and who is refused can send another."""
    Work.left.clear()
    gc.disable()
    try:
        for project in ("none", "none", "none", "fine"):
            with contextlib.suppress(PodiumError):
                await stub.GetImage(pb.GetImageRequest(project=project))
        await asyncio.sleep(0.05)
        assert [work() for work in Work.left] == [None] * 4
    finally:
        gc.enable()


async def test_a_bug_tells_nothing(stub: Any) -> None:
    with pytest.raises(Internal) as caught:
        await stub.GetImage(pb.GetImageRequest(project="bug"))
    assert "secret" not in str(caught.value)


async def test_streams_carry_data_and_then_the_error(stub: Any) -> None:
    got = 0
    with pytest.raises(NotFound):
        async for reply in stub.ExportImage(pb.ExportImageRequest()):
            got += len(reply.chunk)
    assert got == 100_000


async def test_a_service_that_is_away_is_named(tmp_path: Path) -> None:
    line = channel(Settings.from_env({"PODIUM_DIR": str(tmp_path)}), "image")
    with pytest.raises(Unavailable, match="image service"):
        await rpc.ImageServiceStub(line).GetImage(pb.GetImageRequest())
    await line.close()


async def upload(project: str) -> AsyncIterator[pb.UploadImageRequest]:
    yield pb.UploadImageRequest(header=pb.UploadHeader(project=project))
    yield pb.UploadImageRequest(chunk=b"x")


async def test_a_stream_refused_before_its_end_is_read_no_further(stub: Any) -> None:
    """Its source is free again with the refusal: who serves a body can still read the rest away."""
    ended = asyncio.Event()

    async def endless() -> AsyncIterator[pb.UploadImageRequest]:
        yield pb.UploadImageRequest(header=pb.UploadHeader(project="none"))
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    with pytest.raises(NotFound):
        await stub.UploadImage(endless())
    assert ended.is_set()


async def test_a_confined_caller_is_kept_to_its_projects_in_every_kind_of_call(stub: Any) -> None:
    set_identity(Identity("alice", "tls", "", ("web",)))

    assert (await stub.GetImage(pb.GetImageRequest(project="web"))).image.project == "alice"
    assert (await stub.UploadImage(upload("web"))).operation.id == "2"
    with pytest.raises(Forbidden):
        await stub.GetImage(pb.GetImageRequest(project="default"))
    with pytest.raises(Forbidden):
        await stub.UploadImage(upload("default"))
    with pytest.raises(Forbidden):
        await anext(stub.ExportImage(pb.ExportImageRequest(project="default")))


async def test_what_broke_the_callers_own_stream_is_what_the_caller_sees(stub: Any) -> None:
    """gRPC only cancels the call; whoever is told no more leaves its own client without an answer."""

    async def broken() -> AsyncIterator[pb.UploadImageRequest]:
        yield pb.UploadImageRequest(chunk=b"x")
        raise Forbidden("NOT_MORE", "This is too much")

    with pytest.raises(Forbidden, match="too much"):
        await stub.UploadImage(broken())


async def test_a_cancelled_stream_stays_cancelled(stub: Any) -> None:
    began = asyncio.Event()

    async def endless() -> AsyncIterator[pb.UploadImageRequest]:
        yield pb.UploadImageRequest(chunk=b"x")
        began.set()
        await asyncio.sleep(60)

    task = asyncio.ensure_future(stub.UploadImage(endless()))
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
