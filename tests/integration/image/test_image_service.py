"""The image service with real files and real programs, over a real socket; etcd is the verified fake."""

from __future__ import annotations

import asyncio
import hashlib
import io
import subprocess
import tarfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from core.errors import AlreadyExists, Invalid, NotFound, Stale
from core.operations.operation import FAILED, SUCCEEDED, Operation
from core.operations.runner import Runner
from core.records import Instance
from core.rpc.client import channel
from core.rpc.server import serve
from core.settings import Settings
from core.state import keys
from core.state.memory import MemoryStore
from core.state.store import Txn
from protos.podium.image.v1 import image_pb2 as pb
from protos.podium.image.v1 import image_pb2_grpc as rpc
from services.image.blobs.files import FileBlobs
from services.image.formats.squashfs import SquashfsConverter
from services.image.servicer.services import ImageServicer
from services.image.store import ImageStore
from services.image.usecases.images import Images
from services.image.usecases.imports import Imports

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


def messages(
    parts: list[tuple[Any, bytes]], *, chunk: int = 1 << 18, **header: Any
) -> Iterator[pb.UploadImageRequest]:
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


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    settings = Settings.from_env({"PODIUM_DIR": str(tmp_path)})
    settings.run_dir.mkdir()
    memory = MemoryStore()
    store, blobs = ImageStore(memory), FileBlobs(tmp_path / "images")
    runner = Runner(memory, service="image", member="test")
    imports = Imports(store, blobs, SquashfsConverter(), runner)
    images = Images(store, blobs, runner, imports.remove_unused)
    await store.start()
    await runner.start()

    def register(server: grpc.aio.Server) -> list[str]:
        rpc.add_ImageServiceServicer_to_server(ImageServicer(store, images, imports, runner), server)
        return ["podium.image.v1.ImageService"]

    server = await serve(settings, "image", register)
    line = channel(settings, "image")
    yield Service(rpc.ImageServiceStub(line), runner, tmp_path / "images", memory, imports)
    await line.close()
    await server.stop(0)
    await runner.stop()
    await store.stop()


PACKERS = {
    "tar": ("cat",),
    "tar.gz": ("gzip", "-c"),
    "tar.xz": ("xz", "-c"),
    "tar.bz2": ("bzip2", "-c"),
    "tar.zst": ("zstd", "-c"),
    "tar.lz4": ("lz4", "-c"),
    "tar.lzma": ("xz", "-c", "--format=lzma"),
}


@pytest.mark.parametrize("extension", PACKERS)
async def test_a_unified_image_of_any_compression_comes_back_byte_for_byte(
    service: Service, extension: str
) -> None:
    data = packed(unified(), *PACKERS[extension])
    done = await service.upload(data, filename="x.tar", properties={"release": "2"}, public=True)
    fingerprint = hashlib.sha256(data).hexdigest()
    assert done.state == SUCCEEDED, done.error_message
    assert done.metadata == {"fingerprint": fingerprint, "size": str(len(data))}
    image = await service.get(fingerprint[:12])
    assert (image.architecture, image.filename, image.public) == ("x86_64", "x.tar", True)
    assert dict(image.properties) == {"os": "Tiny", "release": "2"}
    assert image.created_at.seconds == 1700000000
    assert await service.export(fingerprint) == [(f"{fingerprint}.{extension}", data)]


async def test_a_unified_image_is_ready_as_our_own_squashfs(service: Service) -> None:
    ready = await service.prepare(await service.imported(unified()))
    assert ready.rootfs_dir == "rootfs"
    assert content(ready.squashfs_path, "rootfs/hello") == b"world"
    assert '"os":"Tiny"' in ready.metadata_json


@pytest.mark.parametrize("squashed", [True, False])
async def test_a_split_image_comes_back_in_two_parts(
    service: Service, squashed: bool, tmp_path: Path
) -> None:
    root = tarball({"etc": None, "etc/os-release": b"ID=tiny\n"})
    if squashed:
        root = squashed_by_a_stranger(root, tmp_path / "r")
    head = packed(tarball({"metadata.yaml": YAML}), "xz", "-c")
    fingerprint = await service.imported(head, root)
    assert fingerprint == hashlib.sha256(head + root).hexdigest()
    extension = "squashfs" if squashed else "tar"
    assert await service.export(fingerprint) == [
        (f"meta-{fingerprint}.tar.xz", head),
        (f"{fingerprint}.{extension}", root),
    ]
    ready = await service.prepare(fingerprint)
    assert ready.rootfs_dir == ""
    assert content(ready.squashfs_path, "etc/os-release") == b"ID=tiny\n"
    assert not same(ready.squashfs_path, root)


ATTACKS: dict[str, tuple[bytes, str]] = {
    "rootfs is a link": (tarball({"metadata.yaml": YAML, "rootfs": "/"}), "no folder rootfs"),
    "metadata.yaml is a link": (tarball({"metadata.yaml": "/etc/shadow", "rootfs": None}), "metadata.yaml"),
    "metadata.yaml is a folder": (tarball({"metadata.yaml": None, "rootfs": None}), "metadata.yaml"),
    "templates is a link": (
        unified(
            **{"metadata.yaml": YAML + b"templates: {/etc/x: {template: shadow}}\n", "templates": "/etc"}
        ),
        "no such folder",
    ),
    "no metadata": (tarball({"rootfs": None}), "metadata.yaml"),
    "no rootfs": (tarball({"metadata.yaml": YAML}), "no folder rootfs"),
    "a file twice": (unified() + b"", ""),
    "a name that leads out": (unified(**{"../evil": b"x"}), "leads out"),
    "an absolute name": (unified(**{"/etc/evil": b"x"}), "not a relative path"),
    "a file below a link": (unified(**{"rootfs/l": "/etc", "rootfs/l/evil": b"x"}), "not usable|refused"),
    "no archive": (b"MZ" + bytes(5000), "neither a tarball"),
    "a damaged archive": (packed(unified(), "gzip", "-c")[:-20], "not usable|refused"),
    "half an archive": (unified()[:700], "not usable|refused"),
    "large metadata": (
        tarball({"metadata.yaml": YAML + b"#" * (1 << 20), "rootfs": None}),
        "larger than 1048576",
    ),
    "a bomb": (packed(bytes(400 << 20), "gzip", "-9", "-c"), "refused|not usable|neither"),
}
del ATTACKS["a file twice"]


@pytest.mark.parametrize("name", ATTACKS)
async def test_a_hostile_image_fails_with_its_reason_and_leaves_nothing(service: Service, name: str) -> None:
    data, why = ATTACKS[name]
    done = await service.upload(data)
    assert done.state == FAILED
    error = done.error()
    assert isinstance(error, Invalid), done.error_message
    with pytest.raises(Invalid, match=why):
        raise error
    assert service.files() == set()
    assert not list((service.root / "staging").iterdir())


async def test_a_bomb_of_valid_entries_is_stopped(service: Service) -> None:
    data = packed(unified(**{"rootfs/zeros": bytes(300 << 20)}), "gzip", "-9", "-c")
    done = await service.upload(data)
    assert (done.state, "unpacks to more" in done.error_message) == (FAILED, True)
    assert service.files() == set()


async def test_another_fingerprint_than_expected_fails(service: Service) -> None:
    done = await service.upload(unified(), expected_fingerprint="0" * 64)
    assert "fingerprints don't match" in done.error_message
    assert service.files() == set()


async def test_the_same_image_twice_fails_but_says_which(service: Service) -> None:
    fingerprint = await service.imported(unified())
    done = await service.upload(unified())
    assert (done.state, done.error_message) == (FAILED, "Image with same fingerprint already exists")
    assert done.metadata["fingerprint"] == fingerprint
    assert (await service.get(fingerprint)).fingerprint == fingerprint
    assert len(await service.export(fingerprint)) == 1


async def test_of_eight_uploads_of_one_image_at_once_one_wins(service: Service) -> None:
    done = await asyncio.gather(*(service.upload(unified()) for _ in range(8)))
    assert sorted(d.state for d in done) == [FAILED] * 7 + [SUCCEEDED]
    assert {d.error_message for d in done} == {"", "Image with same fingerprint already exists"}
    await service.prepare(str(done[0].metadata["fingerprint"]))


@pytest.mark.parametrize(
    "parts", [[], [(3, b"x"), (2, b"y")], [(2, b"x")], [(1, b"x"), (2, b"y")], [(1, b"")]]
)
async def test_an_upload_of_other_parts_is_refused_at_once(
    service: Service, parts: list[tuple[int, bytes]]
) -> None:
    with pytest.raises(Invalid):
        await service.stub.UploadImage(messages(parts))
    assert not list((service.root / "staging").iterdir())


async def test_an_upload_that_breaks_off_leaves_nothing(service: Service) -> None:
    async def endless() -> AsyncIterator[pb.UploadImageRequest]:
        for message in messages([(1, bytes(1 << 20))]):
            yield message
        await asyncio.sleep(60)

    call = service.stub.UploadImage(endless())
    task = asyncio.ensure_future(call) if asyncio.iscoroutine(call) else call
    await asyncio.sleep(0.3)
    task.cancel()
    async with asyncio.timeout(5):
        while list((service.root / "staging").iterdir()):
            await asyncio.sleep(0.05)


async def test_blobs_are_shared_and_go_with_the_last_record(service: Service) -> None:
    fingerprint = await service.imported(unified())
    assert fingerprint == await service.imported(unified(), project="other")
    await service.delete(fingerprint)
    assert len(await service_export(service, fingerprint, "other")) == 1
    await service.delete(fingerprint, "other")
    assert service.files() == set()
    with pytest.raises(NotFound):
        await service.get(fingerprint)


async def service_export(service: Service, fingerprint: str, project: str) -> list[Any]:
    request = pb.ExportImageRequest(project=project, fingerprint=fingerprint)
    return [r async for r in service.stub.ExportImage(request) if r.WhichOneof("message") == "header"]


async def test_an_image_stays_startable_while_instances_lie_on_it(service: Service) -> None:
    fingerprint = await service.imported(unified())
    key = keys.instance("default", "c1")
    await service.memory.commit(Txn().put(key, Instance(id="1", project="default", image=fingerprint)))
    await asyncio.sleep(0.05)
    await service.delete(fingerprint)
    assert (await service.prepare(fingerprint)).rootfs_dir == "rootfs"
    await service.memory.commit(Txn().delete(key))
    await asyncio.sleep(0.05)
    await service.imports.sweep()
    assert service.files() == set()


async def test_a_restart_removes_what_nobody_owns(service: Service) -> None:
    fingerprint = await service.imported(unified())
    (service.root / "staging" / "dead").mkdir()
    (service.root / "staging" / "dead" / "unified").write_bytes(b"x")
    (service.root / "blobs" / ("0" * 64)).write_bytes(b"x")
    await service.imports.clean()
    assert service.files() == {fingerprint, f"{fingerprint}.squashfs"}
    assert not list((service.root / "staging").iterdir())


async def test_a_short_fingerprint_must_be_unique(service: Service) -> None:
    await asyncio.gather(*(service.imported(unified(**{f"rootfs/{n}": b"x"})) for n in range(17)))
    listed = await service.stub.ListImages(pb.ListImagesRequest(project="default"))
    first = [image.fingerprint[0] for image in listed.images]
    twice = next(digit for digit in first if first.count(digit) > 1)
    with pytest.raises(Invalid, match="More than one image matches"):
        await service.get(twice)
    for wrong in ("", "%", "../x", "G"):
        with pytest.raises((Invalid, NotFound)):
            await service.get(wrong)


async def test_an_update_needs_the_revision_it_saw(service: Service) -> None:
    fingerprint = await service.imported(unified())
    seen = await service.get(fingerprint)
    change = pb.UpdateImageRequest(
        project="default", fingerprint=fingerprint, public=True, expected_revision=seen.revision
    )
    changed = (await service.stub.UpdateImage(change)).image
    assert changed.public and not changed.properties and list(changed.profiles) == ["default"]
    with pytest.raises(Stale):
        await service.stub.UpdateImage(change)


async def test_aliases_are_made_moved_renamed_and_deleted(service: Service) -> None:
    one = await service.imported(unified())
    two = await service.imported(unified(**{"rootfs/two": b"2"}))
    alias = pb.Alias(project="default", name="tiny/1", target=one)
    await service.stub.CreateAlias(pb.CreateAliasRequest(alias=alias))
    with pytest.raises(AlreadyExists):
        await service.stub.CreateAlias(pb.CreateAliasRequest(alias=alias))
    with pytest.raises(NotFound):
        await service.stub.CreateAlias(
            pb.CreateAliasRequest(alias=pb.Alias(project="default", name="x", target="0" * 64))
        )
    moved = pb.Alias(project="default", name="tiny/1", target=two, description="d")
    await service.stub.UpdateAlias(pb.UpdateAliasRequest(alias=moved))
    await service.stub.RenameAlias(pb.RenameAliasRequest(project="default", name="tiny/1", new_name="tiny/2"))
    ref = pb.ImageRef(alias="tiny/2")
    image = (await service.stub.GetImage(pb.GetImageRequest(project="default", image=ref))).image
    assert (image.fingerprint, [a.name for a in image.aliases]) == (two, ["tiny/2"])
    await service.delete(two)
    assert not (await service.stub.ListAliases(pb.ListAliasesRequest(project="default"))).aliases


async def test_an_alias_of_an_upload_never_takes_an_existing_one(service: Service) -> None:
    one = await service.imported(unified(), aliases=[pb.Alias(name="tiny")])
    done = await service.upload(unified(**{"rootfs/two": b"2"}), aliases=[pb.Alias(name="tiny")])
    assert (done.state, done.error_message) == (FAILED, 'Alias "tiny" already exists')
    assert (await service.get(one)).aliases[0].name == "tiny"
    assert service.files() == {one, f"{one}.squashfs"}
