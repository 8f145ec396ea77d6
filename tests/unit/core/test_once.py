"""A request that is sent again gets the operation that it got the first time, and no second one."""

from __future__ import annotations

import asyncio
import uuid

import pytest

from core.errors import AlreadyExists, Invalid, Stale
from core.operations.ledger import NOT_ACCEPTED
from core.operations.operation import Context, Step, Story
from core.operations.runner import Runner
from core.rpc.once import Ticket, decode_ticket, end_request, new_operation_id, receive_ticket
from core.state import keys
from core.state.memory import MemoryStore
from core.state.store import Txn
from tests.fakes.lossy_store import LossyStore
from tests.unit.core.test_operations import a_runner, stored


def a_ticket(digest: str = "d") -> Ticket:
    return Ticket(str(uuid.UUID(int=7)), digest)


async def _nothing(ctx: Context) -> None:
    pass


def going(store: MemoryStore) -> Runner:
    return a_runner(store, Story("t.go", "Going", (Step("a", _nothing),)))


async def test_the_ticket_names_the_operation_and_its_record_tells_the_request() -> None:
    store = MemoryStore()
    receive_ticket(a_ticket())

    operation = await going(store).accept("t.go", wait=True)

    assert operation.id == a_ticket().operation_id
    assert (await stored(store, operation.id)).request_digest == "d"


@pytest.mark.parametrize("restarted", [False, True])
async def test_a_second_try_is_refused_whoever_answers_it(restarted: bool) -> None:
    """The state itself keeps it out, so it does not matter what died in between."""
    store = MemoryStore()
    runner = going(store)
    receive_ticket(a_ticket())
    await runner.accept("t.go", wait=True)

    receive_ticket(a_ticket())
    with pytest.raises(AlreadyExists) as refused:
        await (going(store) if restarted else runner).accept("t.go", txn=Txn().put("/twice", b""))

    assert refused.value.reason == "ACCEPTED_BEFORE"
    assert await store.get("/twice") is None
    assert len((await store.list(keys.OPERATIONS)).kvs) == 1


async def test_a_try_that_lost_a_race_keeps_its_ticket() -> None:
    """Whoever tries again because a record changed must still get the same operation."""
    store = MemoryStore()
    runner = going(store)
    receive_ticket(a_ticket())
    with pytest.raises(Stale):
        await runner.accept("t.go", txn=Txn().exists("/missing"))

    assert (await runner.accept("t.go", wait=True)).id == a_ticket().operation_id


async def test_what_a_story_accepts_in_turn_has_an_id_of_its_own() -> None:
    store = MemoryStore()
    inner: list[str] = []

    async def accept_another(ctx: Context) -> None:
        inner.append((await runner.accept("t.go", wait=True)).id)

    runner = a_runner(
        store,
        Story("t.go", "Going", (Step("a", _nothing),)),
        Story("t.all", "All", (Step("each", accept_another), Step("again", accept_another))),
    )
    receive_ticket(a_ticket())

    outer = await runner.accept("t.all", wait=True)

    assert outer.state == "succeeded" and outer.id == a_ticket().operation_id
    assert len({outer.id, *inner}) == 3
    assert [(await stored(store, id)).request_digest for id in inner] == ["", ""]


async def test_a_task_that_outlives_the_request_has_no_ticket() -> None:
    receive_ticket(a_ticket())
    late = asyncio.Event()

    async def background() -> str:
        await late.wait()
        return new_operation_id()

    task = asyncio.create_task(background())
    end_request()
    late.set()

    assert await task != a_ticket().operation_id


async def test_a_try_that_came_to_nothing_says_so_in_its_record() -> None:
    """The next try of the same key is carried out then, under another id."""
    store = LossyStore()
    runner = going(store)
    receive_ticket(a_ticket())
    store.lose("request")
    with pytest.raises(Exception, match="lost"):
        await runner.accept("t.go")

    async with asyncio.timeout(5):
        while runner.find_live(a_ticket().operation_id):
            await asyncio.sleep(0.01)

    assert (await stored(store, a_ticket().operation_id)).error_reason == NOT_ACCEPTED


def test_a_ticket_survives_the_wire_and_nonsense_is_refused() -> None:
    ticket = a_ticket()
    assert decode_ticket(ticket.encode()) == ticket
    assert decode_ticket("") is None
    for text in ("x", "x y", f"{ticket.operation_id} a b"):
        with pytest.raises(Invalid):
            decode_ticket(text)
