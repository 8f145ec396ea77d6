"""Instances and volumes that come by rsync, on a host without a kernel: what is recorded, and what stays."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from core.errors import PodiumError, Unavailable
from services.runtime.domain.arrivals import ArrivedEntry
from services.runtime.domain.offers import Answer, Offer
from services.runtime.usecases.instances.abouts import AboutInstances
from services.runtime.usecases.peers import About
from services.runtime.usecases.policy import Policy
from services.runtime.usecases.transfers import wire as wires
from services.runtime.usecases.transfers.arrive import Arrivals, Spec, WantedArrival
from services.runtime.usecases.transfers.landings import Landings
from services.runtime.usecases.transfers.voyages import Voyages
from tests.fakes.runtime_host import FakeBeside
from tests.unit.runtime.conftest import MEMBER, World

SPEC = Spec("", "x86_64", False, ("default",), {"user.a": "1"}, {})
WANTED = WantedArrival("default", "", "came", spec=SPEC)
SNAPSHOTS = tuple(ArrivedEntry(f"s{n}", "", profiles=("default",), created_at=float(n)) for n in (1, 2))
OFFER = Offer(features=frozenset({"xattrs"}), snapshots=SNAPSHOTS)


class FakeEnd:
    """Says one thing, and keeps what it hears until the mark."""

    def __init__(self, fails: bool = False, files: dict[str, bytes] | None = None) -> None:
        self.heard, self.fails, self.files = b"", fails, files or {}
        self._to_say, self._ended = [b"hello"], asyncio.Event()

    async def read(self) -> bytes:
        if self._to_say:
            return self._to_say.pop()
        await self._ended.wait()
        return b""

    async def write(self, data: bytes) -> None:
        self.heard += data

    def end_input(self) -> None:
        self._ended.set()

    def beside(self) -> dict[str, bytes]:
        return self.files

    async def wait(self) -> None:
        if self.fails:
            raise Unavailable("RSYNC_FAILED", "rsync failed")


class FakeWire:
    """Brings *folders*, each with a mark after it; then the connection is lost."""

    def __init__(self, *folders: bytes) -> None:
        self.coming: list[bytes | None] = [part for folder in folders for part in (folder, None)]
        self.answered: Answer | None = None
        self.sent: list[bytes] = []

    async def answer(self, answer: Answer) -> None:
        self.answered = answer

    async def read(self) -> bytes | None:
        await asyncio.sleep(0)
        if not self.coming:
            raise Unavailable("LOST", "lost")
        return self.coming.pop(0)

    async def write(self, data: bytes) -> None:
        self.sent.append(data)

    async def mark(self) -> None:
        self.sent.append(b"")


@dataclass
class Quay:
    """Receives; what an end heard becomes the text of the volume that is mounted."""

    world: World
    fails: bool = False
    files: dict[str, bytes] = field(default_factory=dict)
    landings: Landings = field(init=False)
    received: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        host, claims = self.world.host, self.world.create._claims
        arrivals = Arrivals(host, Policy(host, MEMBER), claims, self.world.create, MEMBER)
        voyages = Voyages(host, None, arrivals, claims.runner)  # type: ignore[arg-type]
        self.abouts = AboutInstances(host, FakeBeside())
        self.voyages = voyages
        self.landings = Landings(host, arrivals, voyages, self, self.abouts)  # type: ignore[arg-type]

    @asynccontextmanager
    async def receiving(self, folder: Path, name: str, features: frozenset[str]) -> AsyncIterator[FakeEnd]:
        end = FakeEnd(self.fails, self.files)
        yield end
        self.received.append(end.heard)
        self.world.driver.content[self.world.driver.volume("default", folder.name)] = end.heard.decode()

    async def receive(self, wanted: WantedArrival, offer: Offer, wire: FakeWire) -> str:
        """Return why it failed."""
        async with self.voyages.into(wanted.project, wanted.name, passive=True) as voyage:
            await self.landings.receive(voyage, wanted, offer, wire)
        return voyage.why_not

    def content(self, snapshot: str = "") -> str:
        store = self.world.host.store
        record = store.instance("default", "came").record
        id = store.snapshot(record, snapshot).record.id if snapshot else record.id
        return self.world.driver.content[self.world.driver.volume("default", id)]


@pytest.fixture
def quay(world: World) -> Quay:
    return Quay(world)


async def test_snapshots_come_first_and_each_holds_what_was_then(quay: Quay) -> None:
    wire = FakeWire(b"one", b"two", b"now")
    assert await quay.receive(WANTED, OFFER, wire) == ""
    assert [quay.content("s1"), quay.content("s2"), quay.content()] == ["one", "two", "now"]
    assert wire.answered == Answer(features=frozenset({"xattrs"}), snapshots=SNAPSHOTS)
    store = quay.world.host.store
    assert store.instance("default", "came").record.config == {"user.a": "1"}
    assert len(quay.world.driver.made) == 3


async def test_metadata_and_templates_come_along(quay: Quay) -> None:
    """LXD renders them at the next start there, so they must be what they were."""
    quay.files = {"metadata.yaml": b"m", "templates/hosts.tpl": b"t"}

    assert await quay.receive(WANTED, replace(OFFER, snapshots=()), FakeWire(b"now")) == ""

    about = await quay.abouts.of(quay.world.host.store.instance("default", "came").record)
    assert about == About({"properties": {"said": "m"}}, {"hosts.tpl": b"t"})


async def test_a_template_with_an_impossible_name_is_refused(quay: Quay) -> None:
    quay.files = {"metadata.yaml": b"m", "templates/a\nb": b"t"}

    assert await quay.receive(WANTED, OFFER, FakeWire(b"one", b"two", b"now")) == "Invalid template filename"
    assert quay.world.driver.made == set()


async def test_a_refresh_asks_for_what_is_missing(quay: Quay) -> None:
    """What is gone there goes here; the instance and its name stay."""
    await quay.receive(WANTED, OFFER, FakeWire(b"one", b"two", b"now"))
    before = quay.world.host.store.instance("default", "came").record
    third = replace(SNAPSHOTS[0], name="s3", created_at=3.0)
    offer = replace(OFFER, has_archive=True, snapshots=(SNAPSHOTS[1], third))

    wire = FakeWire(b"three", b"later")
    assert await quay.receive(replace(WANTED, refresh=True), offer, wire) == ""

    assert wire.answered and (wire.answered.refresh, wire.answered.names) == (True, ("s3",))
    assert [quay.content("s2"), quay.content("s3"), quay.content()] == ["two", "three", "later"]
    store = quay.world.host.store
    assert [e.record.name for e in store.instance_snapshots(before)] == ["s2", "s3"]
    assert store.instance("default", "came").record == before
    assert len(quay.world.driver.made) == 3


@pytest.mark.parametrize("folders", [(), (b"one",), (b"one", b"two")])
async def test_what_breaks_off_leaves_nothing(quay: Quay, folders: tuple[bytes, ...]) -> None:
    assert await quay.receive(WANTED, OFFER, FakeWire(*folders)) == "lost"
    assert quay.world.driver.made == set()
    assert quay.world.host.store.instances.entries() == []


async def test_what_cannot_be_received_is_said_before_it_is_sent(quay: Quay) -> None:
    await quay.world.made("came")
    for wanted, offer, error in (
        (WANTED, OFFER, "already exists"),
        (replace(WANTED, name="x"), replace(OFFER, is_live=True), "CRIU"),
        (replace(WANTED, name="x"), replace(OFFER, by_rsync=False), "no way"),
        (replace(WANTED, name="x", spec=replace(SPEC, config={"raw.lxc": "x"})), OFFER, "raw.lxc"),
        (replace(WANTED, name="x"), replace(OFFER, snapshots=(ArrivedEntry("a/b", ""),)), "name"),
    ):
        wire = FakeWire(b"")
        assert error in await quay.receive(wanted, offer, wire)
        assert wire.answered is None, error
    assert len(quay.world.driver.made) == 1


async def test_a_running_instance_is_not_refreshed(quay: Quay) -> None:
    await quay.world.made("came")
    await quay.world.changed("start", "came")
    said = await quay.receive(replace(WANTED, refresh=True), OFFER, FakeWire(b""))
    assert said == "Cannot refresh a running instance"


async def test_podium_is_asked_for_its_archive_where_nothing_is_here(quay: Quay) -> None:
    wire = FakeWire()
    async with quay.voyages.into("default", "came", passive=True) as voyage:
        assert not await quay.landings.receive(voyage, WANTED, replace(OFFER, has_archive=True), wire)
    assert wire.answered == Answer(archive=True, by_rsync=False)


async def test_an_end_that_fails_fails_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the other side still sends; and one that never comes to its end is not waited for."""
    end = FakeEnd(fails=True)
    end.end_input()
    with pytest.raises(PodiumError, match="rsync failed"):
        await wires.through(FakeWire(*[b"x"] * 5), end)

    class Silent(FakeWire):
        async def read(self) -> bytes | None:
            await asyncio.sleep(9)
            return None

    monkeypatch.setattr(wires, "_STALL_S", 0.05)
    with pytest.raises(Unavailable, match="sent nothing"):
        await wires.through(Silent(), FakeEnd())

    class Endless(FakeWire):
        async def read(self) -> bytes | None:
            await asyncio.sleep(0)
            return b"x"

    monkeypatch.setattr(wires, "_MARK_S", 0.05)
    end = FakeEnd()
    end.end_input()
    with pytest.raises(Unavailable, match="did not come to an end"):
        await wires.through(Endless(), end)
