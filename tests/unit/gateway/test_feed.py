"""The events feed: what listeners are told, from which revision on, and what when history is gone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from core.errors import Gone, Invalid
from core.events import Event
from core.operations.operation import RUNNING, SUCCEEDED, Operation
from core.state import keys
from core.state.memory import MemoryStore
from core.state.store import Txn
from gateway.lxd.feed import Feed, Listener, Message, parse_cursor

_ALL = frozenset({"operation", "lifecycle"})


@pytest.fixture
async def store() -> MemoryStore:
    return MemoryStore(member="m", service="s")


@pytest.fixture
async def feed(store: MemoryStore) -> AsyncIterator[Feed]:
    made = Feed(store)
    await made.start()
    yield made
    await made.stop()


def a_listener(since: str = "", *, project: str = "", types: frozenset[str] = _ALL, **more: Any) -> Listener:
    return Listener(types, project, lambda: None, since=parse_cursor(since) if since else None, **more)


def an_event(name: str, project: str = "default") -> Event:
    return Event("profile-created", "profiles", project, name)


async def a_change(store: MemoryStore, *names: str, project: str = "default") -> int:
    """Write what tells of an operation and, in the same transaction, of each of *names*."""
    operation = Operation(id=names[0], project=project, state=RUNNING)
    txn = Txn().put(keys.operation(names[0]), operation)
    return await store.commit(txn.emit(*(an_event(name, project) for name in names)))


class Asking(Listener):
    """Looks at what would be answered whenever it is told something."""

    def __init__(self, known: dict[str, int]) -> None:
        super().__init__(_ALL, "", lambda: None)
        self._known = known

    def tell(self, message: Message) -> None:
        self.queue.put_nowait(json.dumps(self._known))


async def test_nobody_is_told_of_an_outcome_that_a_question_would_not_find(store: MemoryStore) -> None:
    """The stock client asks once, then waits: what it was told while it asked must be in the answer."""
    known: dict[str, int] = {}
    feed = Feed(store, before=lambda change: known.update({change.key: change.revision}))
    await feed.start()
    listener = Asking(known)
    await feed.open(listener)

    revision = await a_change(store, "op1")

    answer = await asyncio.wait_for(listener.queue.get(), 2)
    assert json.loads(answer or "{}") == {keys.operation("op1"): revision}
    await feed.stop()


class Heard:
    """A listener's messages, from either source."""

    def __init__(self, feed: Feed, listener: Listener) -> None:
        self._feed, self._listener = feed, listener

    async def open(self) -> Heard:
        past = await self._feed.open(self._listener)
        if past:
            self._task = asyncio.create_task(self._pump(past))
        return self

    async def _pump(self, past: Any) -> None:
        async for message in past:
            await self._listener.tell_patiently(message)

    async def next(self, count: int) -> list[dict[str, Any]]:
        return [
            json.loads(await asyncio.wait_for(self._listener.queue.get(), 2) or "{}") for _ in range(count)
        ]


def names_of(messages: list[dict[str, Any]]) -> list[str]:
    return [m["metadata"].get("source", m["metadata"].get("id")).rsplit("/", 1)[-1] for m in messages]


async def test_every_message_of_a_change_has_its_revision(store: MemoryStore, feed: Feed) -> None:
    """Stock clients ignore keys that they do not know."""
    heard = await Heard(feed, a_listener()).open()
    revision = await a_change(store, "a", "b")

    found = await heard.next(3)

    assert [m["revision"] for m in found] == [revision] * 3
    assert [m["type"] for m in found] == ["operation", "lifecycle", "lifecycle"]
    assert [m["cursor"] for m in found] == [f"{revision}.1", f"{revision}.2", f"{revision}"]


async def test_who_comes_back_hears_the_rest_and_then_what_comes(store: MemoryStore, feed: Feed) -> None:
    seen = await a_change(store, "a")
    await a_change(store, "b")
    heard = await Heard(feed, a_listener(str(seen))).open()
    await a_change(store, "c")

    assert names_of(await heard.next(4)) == ["b", "b", "c", "c"]
    await a_change(store, "d")
    assert names_of(await heard.next(2)) == ["d", "d"]


async def test_a_change_cut_in_two_is_continued_where_it_was_cut(store: MemoryStore, feed: Feed) -> None:
    """Each message of a transaction has the same revision; its cursor says how many of them were seen."""
    await a_change(store, "a", "b", "c")
    first = await Heard(feed, a_listener("1")).open()
    whole = await first.next(4)
    await a_change(store, "d")

    for seen in range(1, 5):
        again = await Heard(feed, a_listener(whole[seen - 1]["cursor"])).open()
        assert names_of(await again.next(5 - seen + 1)) == [*names_of(whole[seen:]), "d", "d"]


async def test_what_does_not_concern_a_listener_keeps_its_place(store: MemoryStore, feed: Feed) -> None:
    """A cursor counts all messages of a transaction, so it holds whatever types are asked for."""
    only = frozenset({"operation"})
    await a_change(store, "a")
    [message] = await (await Heard(feed, a_listener("1", types=only)).open()).next(1)
    await a_change(store, "b")

    again = await Heard(feed, a_listener(message["cursor"], types=only)).open()

    assert names_of(await again.next(1)) == ["b"]


async def test_history_is_confined_as_the_present_is(store: MemoryStore, feed: Feed) -> None:
    await a_change(store, "theirs", project="other")
    await store.commit(Txn().emit(an_event("nobodys", "")))
    await a_change(store, "ours", project="blue")
    heard = await Heard(feed, a_listener("1", project="blue", reader="bb")).open()
    await a_change(store, "theirs", project="other")
    await a_change(store, "later", project="blue")

    found = await heard.next(4)
    assert [m["project"] for m in found] == ["blue"] * 4
    assert {m["metadata"].get("id", "later") for m in found} == {"ours", "later"}


async def test_deleted_records_of_operations_are_no_events(store: MemoryStore, feed: Feed) -> None:
    await a_change(store, "a")
    await store.commit(Txn().delete(keys.operation("a")))
    await store.commit(Txn().put(keys.operation("b"), Operation(id="b", state=SUCCEEDED)))
    heard = await Heard(feed, a_listener("1")).open()

    assert names_of(await heard.next(3)) == ["a", "a", "b"]


async def test_history_that_is_gone_is_refused(store: MemoryStore, feed: Feed) -> None:
    for name in "abcd":
        last = await a_change(store, name)
    store.compact(last)

    with pytest.raises(Gone, match=str(last)):
        await feed.open(a_listener("2"))


@pytest.mark.parametrize("since", ["0", "-1", "x", "1.x", "", "1e3", "9" * 30, "٣", "99", "99.1"])
async def test_nonsense_is_no_revision(store: MemoryStore, feed: Feed, since: str) -> None:
    await a_change(store, "a")
    with pytest.raises(Invalid):
        await feed.open(Listener(_ALL, "", lambda: None, since=parse_cursor(since)))


class GappyStore(MemoryStore):
    """Its history can break off, as it does when a reader comes back after a compaction."""

    def __init__(self) -> None:
        super().__init__(member="m", service="s")
        self.breaks = asyncio.Event()

    async def _commits(self, prefixes: tuple[str, ...], since: int) -> Any:
        inner = super()._commits(prefixes, since)
        while True:
            coming, broken = asyncio.ensure_future(anext(inner)), asyncio.ensure_future(self.breaks.wait())
            await asyncio.wait([coming, broken], return_when=asyncio.FIRST_COMPLETED)
            broken.cancel()
            if not coming.done():
                coming.cancel()
                self.breaks.clear()
                raise Gone("COMPACTED", "gone")
            yield coming.result()


async def test_listeners_end_when_the_feed_lost_history() -> None:
    """They would miss events and never know; they come back and learn what is left."""
    store = GappyStore()
    feed = Feed(store)
    await feed.start()
    listener = a_listener()
    heard = await Heard(feed, listener).open()
    await a_change(store, "told")
    await heard.next(2)

    store.breaks.set()

    assert await asyncio.wait_for(listener.queue.get(), 2) is None
    assert listener.has_lost
    await feed.stop()


async def test_what_is_told_early_is_not_told_again_but_to_who_came_since(
    store: MemoryStore, feed: Feed
) -> None:
    early, late = a_listener(), a_listener()
    await feed.open(early)
    feed.tell_early(Operation(id="op1", state="succeeded", updated_at=1.0))
    await feed.open(late)
    await store.commit(Txn().put(keys.operation("op1"), Operation(id="op1", state="succeeded")))
    await store.commit(Txn().emit(an_event("last")))

    assert [kinds(line) for line in await drained(early)] == ["operation", "lifecycle"]
    assert [kinds(line) for line in await drained(late)] == ["operation", "lifecycle"]


def kinds(line: str) -> str:
    return str(json.loads(line)["type"])


async def drained(listener: Listener) -> list[str]:
    """Return two messages, and see that there is no third."""
    found = [await asyncio.wait_for(listener.queue.get(), 2) for _ in range(2)]
    await asyncio.sleep(0.02)
    assert listener.queue.empty()
    return [line for line in found if line]
