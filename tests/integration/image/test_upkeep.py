"""Images that follow another server, and cached ones that nobody uses, as time goes by."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from core.errors import NotFound, Unavailable
from core.operations.operation import FAILED, SUCCEEDED
from core.operations.runner import Runner
from core.records import Alias, Image, Instance, Project, ServerConfig
from core.settings import Settings
from core.state import keys
from core.state.memory import MemoryStore
from core.state.store import Txn
from services.image.blobs.files import FileBlobs
from services.image.clients.members import Members
from services.image.formats.squashfs import SquashfsConverter
from services.image.ports import Known, RemoteSource, Told
from services.image.store import ImageStore
from services.image.usecases.choices import Choices
from services.image.usecases.claims import Claims
from services.image.usecases.copies import Copies
from services.image.usecases.downloads import Downloads, Wanted
from services.image.usecases.images import Images
from services.image.usecases.imports import Imports
from services.image.usecases.refresh import Refresh
from services.image.usecases.upkeep import Upkeep
from tests.integration.image.harness import unified

HOUR, DAY = 3600.0, 86400.0
SOURCE = RemoteSource("simplestreams", "https://images.example", "tiny", by_alias=True)


@dataclass
class OneServer:
    """Implements ports.Remotes: one image under one alias."""

    content: bytes = unified(**{"rootfs/version": b"1"})
    brought: int = 0
    is_away: bool = False
    asked: list[RemoteSource] = field(default_factory=list)

    async def look(self, source: RemoteSource) -> Known:
        return Known(hashlib.sha256(self.content).hexdigest(), size=len(self.content))

    async def parts(self, source: RemoteSource, told: Told) -> AsyncGenerator[tuple[str, bytes], None]:
        self.asked.append(source)
        if self.is_away:
            raise Unavailable("AWAY", "The server cannot be reached")
        told(await self.look(source))
        yield "unified", self.content[:100]
        self.brought += 1
        yield "unified", self.content[100:]

    def moves_on(self) -> str:
        self.content = unified(**{"rootfs/version": b"%d" % (self.brought + 1)})
        return hashlib.sha256(self.content).hexdigest()


class Member:
    """The image service of one member, with a clock that is set."""

    def __init__(self, memory: MemoryStore, root: Path, server: OneServer, name: str = "m") -> None:
        self.memory, self.server = memory, server
        self.now = 100 * DAY
        root.mkdir(exist_ok=True)
        self.blobs = FileBlobs(root)
        self.store, self.choices = ImageStore(memory, name), Choices(memory)
        self.runner = Runner(memory, service="image", member=name)
        peers = Members(memory, Settings.from_env({"PODIUM_DIR": str(root), "PODIUM_MEMBER": name}))
        copies = Copies(self.store, self.blobs, SquashfsConverter(), peers)
        self.claims = Claims(memory, name)
        imports = Imports(self.store, self.blobs, SquashfsConverter(), self.runner, None, copies.forget)
        self.images = Images(self.store, self.blobs, self.runner, imports.remove_unused, copies.ensure)
        self.downloads = Downloads(
            self.store, server, imports, self.images, self.choices, self.runner, self.claims, copies
        )
        self.refresh = Refresh(self.store, self.downloads, self.images, self.runner)
        self.sweep = imports.sweep
        self.upkeep = Upkeep(
            self.store, self.choices, self.images, self.refresh, self.runner, clock=lambda: self.now
        )

    async def start(self) -> None:
        for part in (self.store, self.choices, self.claims, self.runner):
            await part.start()

    async def stop(self) -> None:
        for part in (self.runner, self.claims, self.choices, self.store):
            await part.stop()

    async def bring(self, **changes: object) -> str:
        """Bring the image as of now; return its fingerprint."""
        wanted = replace(Wanted("default", SOURCE, auto_update=True, aliases=("mine",)), **changes)  # type: ignore[arg-type]
        operation = await self.downloads.accept(wanted)
        done = await self.runner.wait(operation.id)
        assert done.state == SUCCEEDED, done.error_message
        fingerprint = str(done.metadata["fingerprint"])
        await self.change(fingerprint, uploaded_at=self.now)
        return fingerprint

    async def change(self, fingerprint: str, **changes: object) -> None:
        entry = await self.store.image("default", fingerprint)
        image = replace(entry.record, **changes)  # type: ignore[arg-type]
        key = keys.image("default", fingerprint)
        self.store.images.apply(key, image, await self.memory.commit(Txn().put(key, image)))

    async def set(self, **config: str) -> None:
        record = ServerConfig({f"images.{key}": value for key, value in config.items()})
        await self.memory.commit(Txn().put(keys.server_config(), record))
        await self.settled()

    async def settled(self) -> None:
        await self.stop_following()

    async def stop_following(self) -> None:
        for part in (self.choices, self.store):
            await part.stop()
            await part.start()

    def fingerprints(self) -> list[str]:
        return [entry.record.fingerprint for entry in self.store.images.entries()]

    def image(self, fingerprint: str) -> Image:
        entry = self.store.images.get(keys.image("default", fingerprint))
        assert entry
        return entry.record


@pytest.fixture
async def member(tmp_path: Path) -> AsyncIterator[Member]:
    made = Member(MemoryStore(), tmp_path / "a", OneServer())
    await made.memory.commit(Txn().put(keys.project("default"), Project("default")))
    await made.start()
    yield made
    await made.stop()


async def test_an_image_follows_its_alias_once_an_interval(member: Member) -> None:
    """The alias moves in the transaction that removes the old image; what was chosen for it stays."""
    old = await member.bring(public=True)
    await member.change(old, profiles=("web",), last_used_at=5.0)
    new = member.server.moves_on()
    await member.upkeep.run()
    assert member.fingerprints() == [old], "not before an interval has passed"

    member.now += 6 * HOUR
    await member.upkeep.run()
    await member.settled()
    assert member.fingerprints() == [new]
    image = member.image(new)
    assert (image.auto_update, image.public, image.profiles) == (True, True, ("web",))
    assert image.last_used_at == 5.0
    assert member.store.alias("default", "mine").record.target == new
    await member.sweep()
    assert member.blobs.fingerprints() == {new}
    await member.upkeep.run()
    assert len(member.server.asked) == 2, "each interval asks once"


async def test_instances_keep_what_they_were_made_of(member: Member) -> None:
    old = await member.bring()
    instance = Instance(id="i", project="default", name="i", image=old)
    await member.memory.commit(Txn().put(keys.instance("default", "i"), instance))
    new = member.server.moves_on()
    member.now += 6 * HOUR
    await member.settled()
    await member.upkeep.run()
    await member.settled()
    await member.sweep()
    assert member.fingerprints() == [new]
    assert member.blobs.fingerprints() == {old, new}
    assert (await member.images.prepared("default", old)).squashfs.exists()


async def test_of_two_members_one_does_it(member: Member, tmp_path: Path) -> None:
    await member.bring()
    member.server.moves_on()
    other = Member(member.memory, tmp_path / "b", member.server, "other")
    await other.start()
    for each in (member, other):
        each.now += 6 * HOUR
        await each.upkeep.run()
    await other.stop()
    assert len(member.server.asked) == 2


async def test_a_server_that_is_away_is_asked_again_next_time(member: Member) -> None:
    old = await member.bring()
    new = member.server.moves_on()
    for member.server.is_away, expected in ((True, old), (False, new)):
        member.now += 6 * HOUR
        await member.upkeep.run()
        await member.settled()
        assert member.fingerprints() == [expected]
        assert member.store.alias("default", "mine").record.target == expected


@pytest.mark.parametrize("choice", [{"auto_update_interval": "0"}, {"auto_update_interval": "400"}])
async def test_no_interval_no_update(member: Member, choice: dict[str, str]) -> None:
    old = await member.bring()
    await member.set(**choice)
    member.server.moves_on()
    member.now += 13 * HOUR
    await member.upkeep.run()
    assert member.fingerprints() == [old]


async def test_what_was_not_to_follow_stays(member: Member) -> None:
    old = await member.bring(auto_update=False)
    member.server.moves_on()
    member.now += 9 * DAY
    await member.upkeep.run()
    assert member.fingerprints() == [old]


async def test_cached_images_follow_as_the_server_says(member: Member) -> None:
    for choice, follows in (("true", True), ("false", False)):
        await member.set(auto_update_cached=choice)
        fingerprint = await member.bring(cached=True, auto_update=False, aliases=())
        assert member.image(fingerprint).auto_update == follows
        await member.runner.wait((await member.images.delete("default", fingerprint)).id)
        member.server.moves_on()


@pytest.mark.parametrize(
    ("days", "expiry", "is_kept"), [(9, "", True), (11, "", False), (99, "0", True), (4, "3", False)]
)
async def test_cached_images_that_nobody_uses_go(
    member: Member, days: int, expiry: str, is_kept: bool
) -> None:
    await member.set(**({"remote_cache_expiry": expiry} if expiry else {}), auto_update_interval="0")
    fingerprint = await member.bring(cached=True, aliases=())
    member.now += days * DAY
    await member.upkeep.run()
    await member.settled()
    assert (member.fingerprints() == [fingerprint]) == is_kept


async def test_last_use_keeps_a_cached_image_and_nothing_else_is_touched(member: Member) -> None:
    await member.set(auto_update_interval="0")
    fingerprint = await member.bring(cached=True, aliases=())
    instance = Instance(
        id="i", project="default", name="i", image=fingerprint, created_at=member.now + 5 * DAY
    )
    await member.memory.commit(Txn().put(keys.instance("default", "i"), instance))
    await member.settled()
    member.now += 11 * DAY
    await member.upkeep.run()
    assert member.fingerprints() == [fingerprint]
    await member.change(fingerprint, cached=False)
    member.now += 99 * DAY
    await member.upkeep.run()
    assert member.fingerprints() == [fingerprint]


async def test_a_project_has_its_own_choices(member: Member) -> None:
    config = {"images.default_architecture": "aarch64", "images.auto_update_interval": "1"}
    await member.memory.commit(Txn().put(keys.project("default"), Project("default", config=config)))
    await member.settled()
    await member.bring()
    assert member.server.asked[-1].architecture == "aarch64"
    new = member.server.moves_on()
    member.now += HOUR
    await member.upkeep.run()
    await member.settled()
    assert member.fingerprints() == [new]


async def test_a_refresh_that_was_asked_for(member: Member) -> None:
    """It says whether there was something new; what came from no server has a sentence for that."""
    old = await member.bring(auto_update=False)
    for expected in (False, True):
        done = await member.runner.wait((await member.refresh.accept("default", old[:12])).id)
        assert (done.state, done.metadata["refreshed"]) == (SUCCEEDED, expected)
        new = member.server.moves_on() if not expected else done.metadata["fingerprint"]
    await member.settled()
    assert member.fingerprints() == [new]
    await member.change(str(new), origin={})
    done = await member.runner.wait((await member.refresh.accept("default", str(new))).id)
    assert done.state == FAILED and done.error_message.endswith("Image source not found")
    with pytest.raises(NotFound):
        await member.refresh.accept("default", "abcdef")


async def test_a_new_version_that_is_hostile_leaves_the_old_one(member: Member) -> None:
    old = await member.bring()
    member.server.content = unified(**{"../evil": b"x"})
    done = await member.runner.wait((await member.refresh.accept("default", old)).id)
    assert done.state == FAILED and "leads out" in done.error_message
    assert member.fingerprints() == [old] and member.blobs.fingerprints() == {old}
    assert member.blobs.staged() == []


async def test_a_version_that_is_here_already_takes_the_alias(member: Member) -> None:
    old = await member.bring()
    new = member.server.moves_on()
    await member.bring(aliases=("other",))
    await member.runner.wait((await member.refresh.accept("default", old)).id)
    await member.settled()
    assert member.fingerprints() == [new]
    for name in ("mine", "other"):
        assert member.store.alias("default", name).record == Alias("default", name, "", new)
