"""Image services of two members on one state: who has files gives them, who deletes is followed."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from core.errors import Unavailable
from core.operations.operation import SUCCEEDED, Operation
from core.records import ImageClaim, Instance, Presence, Project
from core.settings import Settings
from core.state import codec, keys
from core.state.memory import MemoryStore
from core.state.store import Txn
from protos.podium.image.v1 import share_pb2 as share
from services.cluster.authority import Authority
from services.image.ports import RemoteSource
from services.image.usecases.downloads import Wanted
from tests.contract.conftest import free_port
from tests.fakes.image_server import METADATA, ImageServer, serving, tar
from tests.integration.image.harness import Service, image_service, packed, squashed_by_a_stranger, unified


@dataclass
class Pair:
    """Members a and b; either can be left out and come back with what lies on its disk."""

    root: Path
    memory: MemoryStore
    ports: dict[str, int]

    @contextlib.asynccontextmanager
    async def member(self, name: str) -> AsyncIterator[Service]:
        folder = self.root / name
        settings = Settings.from_env(
            {
                "PODIUM_DIR": str(folder),
                "PODIUM_MEMBER": name,
                "PODIUM_RPC": f"127.0.0.1:{self.ports[name] - 2}",
            }
        )
        if not folder.exists():
            settings.tls_dir.mkdir(parents=True)
            for kind in ("crt", "key") if name == "b" else ():
                ca = (self.root / "a" / "tls" / f"ca.{kind}").read_bytes()
                (settings.tls_dir / f"ca.{kind}").write_bytes(ca)
            Authority(settings.tls_dir, "").ensure(name)
        async with image_service(folder, self.memory, settings=settings) as service:
            yield service


@pytest.fixture
async def pair(tmp_path: Path) -> Pair:
    memory = MemoryStore()
    for project in ("default", "other"):
        record = Project(project, config={"features.images": "true"})
        await memory.commit(Txn().put(keys.project(project), record))
    return Pair(tmp_path, memory, {"a": free_port(), "b": free_port()})


@pytest.fixture
async def both(pair: Pair) -> AsyncIterator[tuple[Service, Service]]:
    async with pair.member("a") as a, pair.member("b") as b:
        yield a, b


@pytest.fixture
def server() -> Iterator[ImageServer]:
    with serving() as found:
        yield found


async def _until_gone(*services: Service) -> None:
    async with asyncio.timeout(5):
        while any(service.files() for service in services):
            await asyncio.sleep(0.02)


async def _until_unsaid(memory: MemoryStore) -> None:
    """Who removed its files writes that down a moment later."""
    async with asyncio.timeout(5):
        while (await memory.list(keys.IMAGE_COPIES)).kvs:
            await asyncio.sleep(0.02)


async def test_a_launch_on_another_member_takes_the_image_from_the_one_that_has_it(
    both: tuple[Service, Service],
) -> None:
    a, b = both
    fingerprint = await a.imported(unified(**{"rootfs/noise": os.urandom(3 << 20)}))

    ready = await asyncio.gather(*(b.prepare(fingerprint) for _ in range(4)))

    assert all(Path(answer.squashfs_path).is_relative_to(b.root) for answer in ready)
    assert b.files() == a.files()
    assert sorted(await b.store.holders(fingerprint)) == ["a"] and b.store.has_copy(fingerprint)
    assert [data for _, data in await b.export(fingerprint)] == [
        data for _, data in await a.export(fingerprint)
    ]


async def test_a_split_image_and_one_of_squashfs_come_whole(
    both: tuple[Service, Service], tmp_path: Path
) -> None:
    a, b = both
    metadata = tar({"metadata.yaml": METADATA})
    root = squashed_by_a_stranger(tar({"etc/x": b"y"}), tmp_path / "made")
    fingerprint = await a.imported(metadata, root)

    exported = await b.export(fingerprint)

    assert [data for _, data in exported] == [metadata, root]


async def test_what_is_deleted_goes_from_every_member(both: tuple[Service, Service]) -> None:
    a, b = both
    fingerprint = await a.imported(unified())
    await b.prepare(fingerprint)

    await b.delete(fingerprint)

    await _until_gone(a, b)
    await _until_unsaid(a.memory)


async def test_a_member_that_was_away_cleans_up_when_it_is_back(pair: Pair) -> None:
    async with pair.member("a") as a:
        async with pair.member("b") as b:
            fingerprint = await a.imported(unified())
            await b.prepare(fingerprint)
        await a.delete(fingerprint)
        await _until_gone(a)

        async with pair.member("b") as b:
            await _until_gone(b)
            await _until_unsaid(a.memory)


async def test_files_stay_where_instances_lie_and_until_those_elsewhere_have_theirs(
    both: tuple[Service, Service],
) -> None:
    """The image is deleted between the launch on b was recorded and its files came."""
    a, b = both
    fingerprint = await a.imported(unified())
    instance = Instance("1", "default", "c", member="b", image=fingerprint)
    await a.memory.commit(Txn().put(keys.instance("default", "c"), instance))
    await asyncio.sleep(0)
    await a.delete(fingerprint)
    assert a.files()

    await b.prepare(fingerprint)
    await asyncio.sleep(0.05)
    await a.imports.sweep()

    assert not a.files() and b.files()
    await b.memory.commit(Txn().delete(keys.instance("default", "c")))
    await asyncio.sleep(0.05)
    await b.imports.sweep()
    assert not b.files()


async def test_who_has_the_files_and_is_away_is_named(pair: Pair) -> None:
    async with pair.member("a") as a:
        async with pair.member("b") as b:
            fingerprint = await b.imported(unified())
        with pytest.raises(Unavailable, match="lie on member 'b', which does not answer"):
            await a.prepare(fingerprint)

        async with pair.member("b"):
            assert await a.prepare(fingerprint)


@contextlib.asynccontextmanager
async def _breaking(address: str, after: int) -> AsyncIterator[tuple[str, list[int]]]:
    """Yield an address that leads to another, and the bytes that came back; it breaks once, after so many."""
    came: list[int] = []

    async def carry(source: asyncio.StreamReader, to: asyncio.StreamWriter, *, is_back: bool) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(1 << 16):
                was = sum(came)
                came.append(len(data) if is_back else 0)
                if was <= after < sum(came):
                    break
                to.write(data)
                await to.drain()
                # No faster than is taken there: what lies unread when it breaks is lost, and comes again.
                await asyncio.sleep(0.002)
        to.transport.abort()

    async def passed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, forth = await asyncio.open_connection(*address.split(":"))
        await asyncio.gather(carry(reader, forth, is_back=False), carry(back, writer, is_back=True))

    between = await asyncio.start_server(passed, "127.0.0.1", 0)
    async with between:
        yield f"127.0.0.1:{between.sockets[0].getsockname()[1]}", came


async def test_what_breaks_off_is_taken_up_where_it_broke(both: tuple[Service, Service]) -> None:
    a, b = both
    fingerprint = await a.imported(unified(**{"rootfs/noise": os.urandom(24 << 20)}))
    kv = await a.memory.get(keys.presence("a", "image"))
    assert kv
    told = codec.decode(Presence, kv.value)
    async with _breaking(told.address, 12 << 20) as (address, came):
        moved = replace(told, address=address)
        await a.memory.commit(Txn().put(keys.presence("a", "image"), moved))

        await b.prepare(fingerprint)

    assert b.files() == a.files()
    assert 24 << 20 < sum(came) < 32 << 20, "it began anew"


async def test_a_member_whose_files_are_damaged_is_not_believed(both: tuple[Service, Service]) -> None:
    a, b = both
    fingerprint = await a.imported(packed(unified(), "gzip", "-c"))
    path = a.root / "blobs" / fingerprint
    path.write_bytes(packed(unified(**{"rootfs/x": b"other"}), "gzip", "-c"))

    with pytest.raises(Exception, match="gone; import it again"):
        await b.prepare(fingerprint)

    assert not b.files()


async def test_every_member_offers_every_public_image(both: tuple[Service, Service]) -> None:
    a, b = both
    metadata, root = tar({"metadata.yaml": METADATA}), tar({"etc/x": b"y"})
    fingerprint = await a.imported(metadata, root, public=True)

    offers = (await b.shares.ListOffers(share.ListOffersRequest(project="default"))).offers

    assert [file.sha256 for file in offers[0].files] == [
        hashlib.sha256(data).hexdigest() for data in (metadata, root)
    ]
    assert not b.files(), "nothing was fetched for a look"
    assert offers[0].image.fingerprint == fingerprint


# --- one download --------------------------------------------------------------------------------


def _wanted(source: RemoteSource, project: str = "default") -> Wanted:
    return Wanted(project, source, cached=True)


async def _bring(service: Service, wanted: Wanted) -> Operation:
    operation = await service.downloads.accept(wanted)
    return await service.runner.wait(operation.id)


def _gets(server: ImageServer, beginning: str) -> list[str]:
    return [path for path in server.asked if path.startswith(beginning)]


async def test_eight_launches_on_two_members_download_once(
    both: tuple[Service, Service], server: ImageServer
) -> None:
    """By two names of it, and in two projects."""
    fingerprint = server.offer(content=os.urandom(1 << 20))
    server.delays_s = {"/r": 0.3}
    source = RemoteSource("simplestreams", server.url, "mini", by_alias=True, may_reach_inside=True)
    other = RemoteSource("simplestreams", server.url, "other", by_alias=True, may_reach_inside=True)

    asked = [
        _bring(both[n % 2], _wanted(other if n % 4 < 2 else source, "other" if n > 5 else "default"))
        for n in range(8)
    ]
    done = await asyncio.gather(*asked)

    assert [operation.error_message for operation in done] == [""] * 8
    assert {operation.metadata["fingerprint"] for operation in done} == {fingerprint}
    assert len(_gets(server, "/r")) == len(_gets(server, "/m")) == 1
    assert not (await both[0].memory.list(keys.IMAGE_CLAIMS)).kvs


async def test_who_only_names_a_fingerprint_is_not_given_the_image(
    both: tuple[Service, Service], server: ImageServer
) -> None:
    """Another server says that it has what a project keeps to itself; it has to send it."""
    fingerprint = server.offer()
    source = RemoteSource("simplestreams", server.url, "mini", by_alias=True, may_reach_inside=True)
    assert (await _bring(both[0], _wanted(source))).state == SUCCEEDED
    with serving() as hostile:
        hostile.files = {path: data for path, data in server.files.items() if path.startswith("/streams")}
        lying = RemoteSource("simplestreams", hostile.url, "mini", by_alias=True, may_reach_inside=True)

        done = await _bring(both[1], _wanted(lying, "other"))

    assert done.state != SUCCEEDED
    assert both[1].store.images.get(keys.image("other", fingerprint)) is None


async def test_a_claim_of_the_dead_holds_nobody_up(
    both: tuple[Service, Service], server: ImageServer
) -> None:
    """Its operation ended, or its member is away."""
    fingerprint = server.offer()
    dead = Operation("dead", "image", "gone", "image.download", state="running")
    await both[0].memory.commit(Txn().put(keys.operation("dead"), dead))
    for operation in ("never", "dead"):
        key = keys.image_claim(f"{fingerprint} default")
        await both[0].memory.commit(Txn().put(key, ImageClaim("gone", operation)))
        source = RemoteSource("simplestreams", server.url, "mini", by_alias=True, may_reach_inside=True)

        done = await _bring(both[0], _wanted(source))

        assert done.state == SUCCEEDED
        await both[0].delete(fingerprint)
        await _until_gone(both[0])
