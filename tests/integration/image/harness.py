"""A real image service on a real socket, with real files and programs; etcd is the verified fake."""

from __future__ import annotations

import contextlib
import io
import subprocess
import tarfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from core.operations.operation import SUCCEEDED, Operation
from core.operations.runner import Runner
from core.records import Presence
from core.rpc.client import channel
from core.rpc.server import serve
from core.settings import Settings
from core.state import keys
from core.state.memory import MemoryStore
from core.state.store import Txn
from protos.podium.image.v1 import copy_pb2_grpc as copy_rpc
from protos.podium.image.v1 import image_pb2 as pb
from protos.podium.image.v1 import image_pb2_grpc as rpc
from protos.podium.image.v1 import share_pb2_grpc as share_rpc
from services.image.blobs.files import FileBlobs
from services.image.clients.members import Members
from services.image.formats.squashfs import SquashfsConverter
from services.image.ports import Builder
from services.image.servicer.copies import CopyServicer
from services.image.servicer.lending import Lending
from services.image.servicer.services import ImageServicer
from services.image.servicer.sharing import ShareServicer
from services.image.sources.mmdebstrap import Mmdebstrap
from services.image.sources.push import Pushers
from services.image.sources.remote import Fetchers
from services.image.store import ImageStore
from services.image.usecases.builds import Builds
from services.image.usecases.choices import Choices
from services.image.usecases.claims import Claims
from services.image.usecases.copies import Copies, Follower
from services.image.usecases.downloads import Downloads
from services.image.usecases.images import Images
from services.image.usecases.imports import Imports
from services.image.usecases.pushes import Pushes
from services.image.usecases.secrets import Secrets
from services.image.usecases.sharing import Sharing

YAML = b"architecture: amd64\ncreation_date: 1700000000\nproperties: {os: Tiny, release: '1'}\n"
Content = bytes | str | None  # a file, a symbolic link, a folder


def tarball(entries: dict[str, Content]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in entries.items():
            info = tarfile.TarInfo(name)
            if content is None:
                info.type, info.mode = tarfile.DIRTYPE, 0o755
            elif isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
            else:
                info.size = len(content)
            tar.addfile(info, io.BytesIO(content if isinstance(content, bytes) else b""))
    return out.getvalue()


def unified(**more: Any) -> bytes:
    return tarball({"metadata.yaml": YAML, "rootfs": None, "rootfs/hello": b"world", **more})


def packed(data: bytes, *program: str) -> bytes:
    return subprocess.run(program, input=data, capture_output=True, check=True).stdout


def content(squashfs: str, path: str) -> bytes:
    return subprocess.run(["rdsquashfs", "-c", path, squashfs], capture_output=True, check=True).stdout


def squashed_by_a_stranger(tar: bytes, target: Path) -> bytes:
    subprocess.run(["tar2sqfs", "-q", str(target)], input=tar, check=True)
    return target.read_bytes()


def same(path: str, data: bytes) -> bool:
    return Path(path).read_bytes() == data


async def messages(
    parts: list[tuple[Any, bytes]], *, chunk: int = 1 << 18, **header: Any
) -> AsyncIterator[pb.UploadImageRequest]:
    yield pb.UploadImageRequest(header=pb.UploadHeader(**{"project": "default", **header}))
    for part, data in parts:
        yield pb.UploadImageRequest(part=part)
        for at in range(0, len(data), chunk):
            yield pb.UploadImageRequest(chunk=data[at : at + chunk])


@dataclass
class Service:
    stub: Any
    runner: Runner
    root: Path
    memory: MemoryStore
    imports: Imports
    shares: Any
    tokens: Secrets
    store: ImageStore
    copies: Copies
    downloads: Downloads

    async def upload(self, *parts: bytes, **header: Any) -> Operation:
        kinds = [pb.IMAGE_PART_UNIFIED] if len(parts) == 1 else [pb.IMAGE_PART_METADATA, pb.IMAGE_PART_ROOTFS]
        sent = messages(list(zip(kinds, parts, strict=True)), **header)
        reply = await self.stub.UploadImage(sent)
        return await self.runner.wait(reply.operation.id)

    async def imported(self, *parts: bytes, **header: Any) -> str:
        done = await self.upload(*parts, **header)
        assert done.state == SUCCEEDED, done.error_message
        return str(done.metadata["fingerprint"])

    async def export(self, fingerprint: str) -> list[tuple[str, bytes]]:
        files: list[tuple[str, bytes]] = []
        async for reply in self.stub.ExportImage(
            pb.ExportImageRequest(project="default", fingerprint=fingerprint)
        ):
            if reply.WhichOneof("message") == "header":
                files.append((reply.header.filename, b""))
            else:
                files[-1] = (files[-1][0], files[-1][1] + reply.chunk)
        return files

    async def get(self, prefix: str, project: str = "default") -> Any:
        ref = pb.ImageRef(fingerprint=prefix)
        return (await self.stub.GetImage(pb.GetImageRequest(project=project, image=ref))).image

    async def delete(self, fingerprint: str, project: str = "default") -> None:
        reply = await self.stub.DeleteImage(pb.DeleteImageRequest(project=project, fingerprint=fingerprint))
        await self.runner.wait(reply.operation.id)

    async def prepare(self, fingerprint: str) -> Any:
        return await self.stub.PrepareImage(
            pb.PrepareImageRequest(project="default", fingerprint=fingerprint)
        )

    def files(self) -> set[str]:
        return {path.name for path in self.root.rglob("*") if path.is_file()}


@contextlib.asynccontextmanager
async def image_service(
    root: Path, memory: MemoryStore, builder: Builder | None = None, settings: Settings | None = None
) -> AsyncIterator[Service]:
    """Run the service with its socket and files below *root*; with certificates there also for others."""
    settings = settings or Settings.from_env({"PODIUM_DIR": str(root), "PODIUM_MEMBER": "test"})
    member = settings.member
    settings.run_dir.mkdir(exist_ok=True)
    store, blobs, choices = ImageStore(memory, member), FileBlobs(root / "images"), Choices(memory)
    runner = Runner(memory, service="image", member=member)
    copies = Copies(store, blobs, SquashfsConverter(), Members(memory, settings))
    imports = Imports(store, blobs, SquashfsConverter(), runner, None, copies.forget)
    images = Images(store, blobs, runner, imports.remove_unused, copies.ensure)
    claims = Claims(memory, member)
    fetchers = Fetchers("x86_64", root / "images", choices.mirrors_of)
    downloads = Downloads(store, fetchers, imports, images, choices, runner, claims, copies)
    following = Follower(store, imports.remove_unused)
    builds = Builds(store, blobs, builder or Mmdebstrap(), imports, images, runner)
    lending = Lending(settings.image_lending_socket)
    tokens = Secrets(store, runner)
    pushes = Pushes(store, images, blobs, Pushers(), runner)
    shared = Sharing(store, images, blobs, tokens, copies.offered)
    sharing = ShareServicer(store, shared, tokens, pushes, runner, lending)
    parts = (store, choices, claims, runner, lending, following)
    for part in parts:
        await part.start()
    await imports.clean()
    await copies.agree()

    def register(server: grpc.aio.Server) -> list[str]:
        rpc.add_ImageServiceServicer_to_server(
            ImageServicer(store, images, imports, builds, runner, lending), server
        )
        share_rpc.add_ShareServiceServicer_to_server(sharing, server)
        copy_rpc.add_CopyServiceServicer_to_server(CopyServicer(copies), server)
        return ["podium.image.v1.ImageService", "podium.image.v1.ShareService"]

    async def announce(address: str) -> None:
        await memory.commit(Txn().put(keys.presence(member, "image"), Presence(member, "image", "", address)))

    server = await serve(settings, "image", register, announce=announce)
    line = channel(settings, "image")
    try:
        stub, shares = rpc.ImageServiceStub(line), share_rpc.ShareServiceStub(line)
        yield Service(
            stub, runner, root / "images", memory, imports, shares, tokens, store, copies, downloads
        )
    finally:
        await line.close()
        await server.stop(0)
        await memory.commit(Txn().delete(keys.presence(member, "image")))
        for part in reversed(parts):
            await part.stop()
        await imports.stop()
