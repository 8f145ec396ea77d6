"""Images made from packages: the story with a builder of the tests, and the real builder without root."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from core.errors import Invalid
from core.operations.operation import CANCELLED, FAILED, SUCCEEDED, Operation
from core.state.memory import MemoryStore
from protos.podium.image.v1 import image_pb2 as pb
from services.image.sources import apt
from services.image.sources.mmdebstrap import Mmdebstrap
from services.image.sources.recipe import Recipe, RecipeFile, recipe_of
from tests.integration.image.harness import YAML, Service, image_service, tarball

Tell = Callable[[str], Awaitable[None]]


class QuickBuilder:
    """Implements ports.Builder: an image of one file, another one each time."""

    def __init__(self) -> None:
        self.built = 0
        self.fails = False
        self.hangs = False

    async def parts(self, recipe: Recipe, work: Path, tell: Tell) -> AsyncGenerator[tuple[str, bytes], None]:
        self.built += 1
        (work / "half a tree").mkdir()
        await tell("running apt-get update...")
        yield "metadata", tarball({"metadata.yaml": YAML})
        yield "rootfs", tarball({"etc/count": str(self.built).encode()})
        if self.fails:
            raise Invalid("BUILD_FAILED", "The image was not built: no such package")
        if self.hangs:
            await asyncio.sleep(60)


@pytest.fixture
def builder() -> QuickBuilder:
    return QuickBuilder()


@pytest.fixture
async def service(tmp_path: Path, builder: QuickBuilder) -> AsyncIterator[Service]:
    async with image_service(tmp_path, MemoryStore(), builder) as running:
        yield running


async def build(service: Service, **wanted: object) -> Operation:
    request = pb.BuildImageRequest(
        **{"project": "default", "distribution": "debian", "release": "12", **wanted}  # type: ignore[arg-type]
    )
    reply = await service.stub.BuildImage(request)
    return await service.runner.wait(reply.operation.id)


async def test_a_built_image_is_an_image_like_any_other_with_its_aliases(service: Service) -> None:
    done = await build(service, aliases=["debian/12"])
    assert done.state == SUCCEEDED, done.error_message
    image = await service.get(str(done.metadata["fingerprint"]))
    assert ([a.name for a in image.aliases], image.split) == (["debian/12"], True)
    assert done.metadata["build_progress"] == "running apt-get update..."
    assert not list((service.root / "staging").iterdir())


async def test_the_same_recipe_is_built_once_unless_forced(service: Service, builder: QuickBuilder) -> None:
    """Aliases move to what is newest, also when nothing had to be built."""
    one = await build(service, aliases=["a"])
    same = await build(service, release="bookworm", aliases=["b"])
    other = await build(service, packages=["cron"])
    new = await build(service, aliases=["a"], force=True)

    prints = [str(done.metadata["fingerprint"]) for done in (one, same, other, new)]
    assert (builder.built, prints[0] == prints[1], len(set(prints))) == (3, True, 3)
    assert [a.name for a in (await service.get(prints[3])).aliases] == ["a"]
    assert [a.name for a in (await service.get(prints[0])).aliases] == ["b"]


async def test_a_build_that_fails_says_why_and_leaves_nothing(
    service: Service, builder: QuickBuilder
) -> None:
    builder.fails = True
    done = await build(service, aliases=["a"])
    assert (done.state, done.error_message) == (FAILED, "The image was not built: no such package")
    assert service.files() == set()
    assert not list((service.root / "staging").iterdir())


async def test_a_build_can_be_cancelled(service: Service, builder: QuickBuilder) -> None:
    builder.hangs = True
    reply = await service.stub.BuildImage(
        pb.BuildImageRequest(project="default", distribution="debian", release="12")
    )
    while not builder.built:
        await asyncio.sleep(0.01)
    await service.runner.cancel(reply.operation.id)
    assert (await service.runner.wait(reply.operation.id)).state == CANCELLED
    async with asyncio.timeout(5):
        while list((service.root / "staging").iterdir()):
            await asyncio.sleep(0.02)
    assert service.files() == set()


@pytest.mark.parametrize(
    "wanted",
    [
        {"distribution": "plan9"},
        {"release": "../12"},
        {"release": ""},
        {"release": "--help"},
        {"packages": ["a,b"]},
        {"packages": ["a b"]},
        {"packages": ["~i"]},
        {"aliases": [""]},
    ],
)
async def test_what_is_no_recipe_is_refused_at_once(
    service: Service, builder: QuickBuilder, wanted: dict[str, object]
) -> None:
    with pytest.raises(Invalid):
        await build(service, **wanted)
    assert builder.built == 0


CONFINED = ("--clear-groups", "--no-new-privs", "--inh-caps=-all", "--bounding-set=-all")
ASKED_FOR = {"eth0.network", "sources.list", "files.tar"}
FILES = (RecipeFile("etc/passwd", "mine\n"), RecipeFile("opt/deep/run", "x", 0o755))


async def test_the_real_builder_needs_no_privilege(tmp_path: Path) -> None:
    """By a user without capabilities, who may gain none: owners, devices and set-uid bits are all there."""
    release, nobody = apt.codename(), pwd.getpwnam("nobody")
    prefix = ("setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", *CONFINED)
    work = Path(tempfile.mkdtemp(prefix="podium-build-", dir="/var/tmp"))
    os.chown(work, nobody.pw_uid, nobody.pw_gid)

    async def tell(line: str) -> None:
        said.append(line)

    said: list[str] = []
    recipe = recipe_of("debian", release, files=FILES)
    try:
        with (tmp_path / "rootfs").open("wb") as rootfs:
            async for part, chunk in Mmdebstrap(prefix).parts(recipe, work, tell):
                assert part == "metadata" or rootfs.write(chunk)
        assert {path.name for path in work.iterdir()} == ASKED_FOR
    finally:
        shutil.rmtree(work)
    subprocess.run(["zstd", "-dq", tmp_path / "rootfs", "-o", tmp_path / "tar"], check=True)
    with tarfile.open(tmp_path / "tar") as archive:
        found = {member.name: member for member in archive}
        mine = archive.extractfile("./etc/passwd")
        assert mine and mine.read() == b"mine\n"
    passwd = found["./usr/bin/passwd"]
    assert (passwd.uid, passwd.mode & 0o7777, found["./etc/shadow"].gid) == (0, 0o4755, 42)
    assert found["./dev/null"].ischr() and found["./etc/resolv.conf"].issym()
    assert found["./etc/machine-id"].size == 0 and "./etc/systemd/network/eth0.network" in found
    assert found["./opt/deep/run"].mode == 0o755
    assert any(line.startswith("10% downloading packages") for line in said)


def test_a_recipe_is_named_by_what_it_is_made_of() -> None:
    assert recipe_of("debian", "12").id == recipe_of("debian", "bookworm").id
    assert recipe_of("debian", "12").id != recipe_of("debian", "12", ("cron",)).id
