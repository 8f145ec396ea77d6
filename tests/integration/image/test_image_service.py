"""The image service over its socket: import, export, names, and who owns the files."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from core.errors import AlreadyExists, Invalid, NotFound, Stale
from core.operations.operation import FAILED, SUCCEEDED
from core.records import Image, Instance
from core.state import keys
from core.state.memory import MemoryStore
from core.state.store import Txn
from protos.podium.image.v1 import image_pb2 as pb
from services.image.formats.squashfs import SquashfsConverter
from services.image.store import ImageStore
from tests.integration.image.harness import (
    YAML,
    Service,
    content,
    messages,
    packed,
    same,
    squashed_by_a_stranger,
    tarball,
    unified,
)

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


TEMPLATES = YAML + b"templates: {/etc/motd: {template: motd.tpl, when: [create]}}\n"
ABOUT = {"metadata.yaml": TEMPLATES, "templates": None, "templates/motd.tpl": b"hello\n"}
ROOT = {"etc": None, "etc/os-release": b"ID=tiny\n", "etc/link": "os-release"}


@pytest.mark.parametrize(
    ("head", "root"),
    [*zip(PACKERS, [*list(PACKERS)[3:], *list(PACKERS)[:3]], strict=True), ("tar.xz", "squashfs")],
)
async def test_parts_of_all_formats_go_together(
    service: Service, head: str, root: str, tmp_path: Path
) -> None:
    """Each comes back as it was, under the extension of what it is."""
    about, tree = packed(tarball(ABOUT), *PACKERS[head]), tarball(ROOT)
    files = (
        squashed_by_a_stranger(tree, tmp_path / "r") if root == "squashfs" else packed(tree, *PACKERS[root])
    )
    fingerprint = await service.imported(about, files)
    assert await service.export(fingerprint) == [
        (f"meta-{fingerprint}.{head}", about),
        (f"{fingerprint}.{root}", files),
    ]
    ready = await service.prepare(fingerprint)
    assert content(ready.squashfs_path, "etc/os-release") == b"ID=tiny\n"
    assert "motd.tpl" in ready.metadata_json


async def test_a_squashfs_may_hold_all_of_an_image(service: Service, tmp_path: Path) -> None:
    tree = tarball({**ABOUT, "rootfs": None, **{f"rootfs/{name}": what for name, what in ROOT.items()}})
    data = squashed_by_a_stranger(tree, tmp_path / "u")
    fingerprint = await service.imported(data)
    assert await service.export(fingerprint) == [(f"{fingerprint}.squashfs", data)]
    ready = await service.prepare(fingerprint)
    assert ready.rootfs_dir == "rootfs"
    assert content(ready.squashfs_path, "rootfs/etc/os-release") == b"ID=tiny\n"


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
        async for message in messages([(1, bytes(1 << 20))]):
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


async def test_access_control_lists_that_are_lost_are_told(service: Service) -> None:
    """The kernel's squashfs has no such attributes; all else of the file is kept."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, data in (("metadata.yaml", YAML), ("rootfs/a", b"x"), ("rootfs/b", b"y")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            if name != "metadata.yaml":
                info.pax_headers = {
                    "SCHILY.xattr.system.posix_acl_access": "x",
                    "SCHILY.xattr.user.kept": "z",
                }
            tar.addfile(info, io.BytesIO(data))

    done = await service.upload(out.getvalue())

    assert done.state == SUCCEEDED
    assert done.metadata["warning"].startswith("Access control lists of 2 files")
    ready = await service.prepare(done.metadata["fingerprint"])
    assert content(ready.squashfs_path, "rootfs/a") == b"x"
    assert "warning" not in (await service.upload(unified())).metadata


async def test_a_short_fingerprint_must_be_unique(service: Service) -> None:
    await asyncio.gather(*(service.imported(unified(**{f"rootfs/{n}": b"x"})) for n in range(17)))
    listed = await service.stub.ListImages(pb.ListImagesRequest(project="default"))
    first = [image.fingerprint[0] for image in listed.images]
    twice = next(digit for digit in first if first.count(digit) > 1)
    with pytest.raises(Invalid, match="More than one image matches"):
        await service.get(twice)
    assert (await service.get(listed.images[0].fingerprint.upper())) == listed.images[0]
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


async def test_an_image_may_have_no_profiles(service: Service) -> None:
    """Which is something else than none that are named."""
    fingerprint = await service.imported(unified())
    for without in (True, False):
        change = pb.UpdateImageRequest(project="default", fingerprint=fingerprint, without_profiles=without)
        changed = (await service.stub.UpdateImage(change)).image
        assert list(changed.profiles) == ([] if without else ["default"])


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


async def test_an_image_is_found_before_the_cache_was_told_of_it() -> None:
    """Another process may see an import succeed, and name the image, before this one's watch says so."""
    memory = MemoryStore()
    store = ImageStore(memory)
    await store.start()
    image = Image(project="default", fingerprint="ab" * 32)
    await memory.commit(Txn().put(keys.image("default", image.fingerprint), image))
    assert (await store.image("default", "abab")).record == image
    with pytest.raises(NotFound):
        await store.image("other", "abab")
    await store.stop()


@pytest.mark.parametrize("squashed", [True, False])
async def test_a_long_conversion_tells_how_far_it_is(tmp_path: Path, squashed: bool) -> None:
    """Any value under a name that ends in _progress is shown by the stock client."""
    data = tarball({"a": os.urandom(10 << 20)})
    source = tmp_path / "source"
    source.write_bytes(squashed_by_a_stranger(data, source) if squashed else packed(data, "xz", "-0", "-c"))
    said = list[str]()

    async def tell(how_far: str) -> None:
        said.append(how_far)

    await SquashfsConverter(tell_every_s=0.02).convert(source, tmp_path / "made", tell)
    assert said and all(text.endswith("MiB" if squashed else ("%", "MiB")) for text in said)
