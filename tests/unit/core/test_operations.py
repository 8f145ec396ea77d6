"""Operations: run, undo, cancel, and pick up after a crash."""

from __future__ import annotations

import asyncio

import pytest

from core.errors import Invalid, Stale, Unavailable, WrongState
from core.operations.convert import from_proto, to_proto
from core.operations.operation import CHANNEL, TOKEN, Context, Operation, Step, Story
from core.operations.runner import Runner
from core.state import codec, keys
from core.state.memory import MemoryStore
from core.state.store import Txn
from tests.fakes.lossy_store import LossyStore
from tests.fakes.slow_store import SlowStore


def a_runner(store: MemoryStore, *stories: Story) -> Runner:
    runner = Runner(store, service="runtime", member="m")
    runner.register(*stories)
    return runner


async def stored(store: MemoryStore, id: str) -> Operation:
    kv = await store.get(keys.operation(id))
    assert kv
    return codec.decode(Operation, kv.value)


class Diary:
    """Steps that write down what happened to them."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.gate = asyncio.Event()

    def step(self, name: str, *, fail: Exception | None = None, block: bool = False) -> Step:
        async def do(ctx: Context) -> None:
            self.lines.append(name)
            if block:
                await self.gate.wait()
            if fail:
                raise fail

        async def undo(ctx: Context) -> None:
            self.lines.append(f"undo {name}")

        return Step(name, do, undo)


async def test_success_commits_results_with_the_outcome() -> None:
    store, diary = MemoryStore(), Diary()

    async def seal(ctx: Context) -> None:
        ctx.result(answer=42)
        ctx.txn.put("/x", b"1")

    runner = a_runner(store, Story("t.go", "Going", (diary.step("a"), Step("seal", seal))))
    operation = await runner.accept("t.go", wait=True)

    assert operation.state == "succeeded"
    record = await stored(store, operation.id)
    x = await store.get("/x")
    assert x is not None
    assert record.metadata == {"answer": 42}
    assert x.revision == runner.revisions[operation.id]


async def test_failure_undoes_started_steps_in_reverse_and_keeps_the_reason() -> None:
    store, diary = MemoryStore(), Diary()
    steps = (diary.step("a"), diary.step("b", fail=Invalid("BAD", "b is bad")), diary.step("c"))
    runner = a_runner(store, Story("t.go", "Going", steps))

    operation = await runner.accept("t.go", wait=True)

    assert diary.lines == ["a", "b", "undo b", "undo a"]
    assert operation.state == "failed"
    error = operation.error()
    assert isinstance(error, Invalid)
    assert error.reason == "BAD"


async def test_undo_waits_for_a_service_that_is_away() -> None:
    """Else a half-made thing would stay for good because its remover was just restarting."""
    calls: list[str] = []

    async def fail(ctx: Context) -> None:
        raise Invalid("BAD", "no")

    async def undo(ctx: Context) -> None:
        calls.append("undo")
        if len(calls) < 2:
            raise Unavailable("AWAY", "not now")

    runner = a_runner(MemoryStore(), Story("t.go", "Going", (Step("a", fail, undo),)))

    assert (await runner.accept("t.go", wait=True)).state == "failed"
    assert calls == ["undo", "undo"]


async def test_a_bug_fails_the_operation_without_detail() -> None:
    diary = Diary()
    runner = a_runner(MemoryStore(), Story("t.go", "Going", (diary.step("a", fail=KeyError("secret")),)))

    operation = await runner.accept("t.go", wait=True)

    assert operation.state == "failed"
    assert "secret" not in operation.error_message
    assert diary.lines == ["a", "undo a"]


async def test_acceptance_is_one_transaction_with_what_it_records() -> None:
    store = MemoryStore()
    await store.commit(Txn().put("/name", b"taken"))
    runner = a_runner(store, Story("t.go", "Going", ()))

    with pytest.raises(Stale):
        await runner.accept("t.go", txn=Txn().absent("/name").put("/name", b"mine"))

    assert (await store.list(keys.OPERATIONS)).kvs == []


async def test_cancel_undoes_and_ends_cancelled() -> None:
    store, diary = MemoryStore(), Diary()
    story = Story("t.go", "Going", (diary.step("a"), diary.step("b", block=True)), may_cancel=True)
    runner = a_runner(store, story)
    operation = await runner.accept("t.go")
    await asyncio.sleep(0)

    await runner.cancel(operation.id)

    assert (await runner.wait(operation.id)).state == "cancelled"
    assert diary.lines == ["a", "b", "undo b", "undo a"]
    with pytest.raises(WrongState):
        await runner.cancel(operation.id)


async def test_what_a_crash_left_is_run_again_by_the_next_process() -> None:
    store, diary = MemoryStore(), Diary()
    story = Story("t.go", "Going", (diary.step("a"), diary.step("b", block=True)))
    first = a_runner(store, story)
    operation = await first.accept("t.go", input={"k": "v"})
    await asyncio.sleep(0)
    await first.stop()

    diary.gate.set()
    second = a_runner(store, story)
    await second.start()

    assert (await second.wait(operation.id)).state == "succeeded"
    assert diary.lines == ["a", "b", "a", "b"]


async def test_a_story_that_cannot_be_resumed_is_undone() -> None:
    store, diary = MemoryStore(), Diary()
    story = Story("t.go", "Going", (diary.step("a", block=True),), resumable=False)
    first = a_runner(store, story)
    operation = await first.accept("t.go")
    await asyncio.sleep(0)
    await first.stop()

    second = a_runner(store, story)
    await second.start()

    assert (await second.wait(operation.id)).state == "failed"
    assert diary.lines == ["a", "undo a"]


async def test_channels_end_with_their_service_and_tokens_do_not() -> None:
    store = MemoryStore()
    first = a_runner(store)
    channel = await first.open("exec", "Executing command", op_class=CHANNEL)
    token = await first.open("token", "Token", op_class=TOKEN, may_cancel=True)

    second = a_runner(store)
    await second.start()

    assert (await second.wait(channel.id)).state == "failed"
    assert second.get(token.id).state == "running"
    assert (await second.cancel(token.id)).state == "cancelled"


async def test_operation_survives_the_wire() -> None:
    runner = a_runner(MemoryStore(), Story("t.go", "Going", ()))
    operation = await runner.accept("t.go", resources={"instances": ("web",)}, wait=True)

    back = from_proto(to_proto(operation))

    assert back.resources == operation.resources
    assert (back.id, back.state, back.kind) == (operation.id, "succeeded", "t.go")


async def test_a_step_waits_for_a_service_that_is_away() -> None:
    """A service that is being replaced is back in a second; failing for that would undo much work."""
    diary, away = Diary(), [True, True]

    async def call(ctx: Context) -> None:
        diary.lines.append("call")
        if away:
            away.pop()
            raise Unavailable("NO_ANSWER", "The network service does not answer")

    runner = a_runner(MemoryStore(), Story("t.go", "Going", (Step("call", call),)))

    assert (await runner.accept("t.go", wait=True)).state == "succeeded"
    assert diary.lines == ["call"] * 3


async def test_an_operation_recorded_while_the_answer_got_lost_is_run() -> None:
    """The client was told 503, but what is recorded is carried out: nothing stays half-accepted."""
    store, diary = LossyStore(), Diary()
    runner = a_runner(store, Story("t.go", "Going", (diary.step("a"),)))
    store.lose("answer")

    with pytest.raises(Unavailable):
        await runner.accept("t.go", id="one")
    await runner.wait("one")
    await runner.wait("one")

    assert diary.lines == ["a"]
    assert (await stored(store, "one")).state == "succeeded"


async def test_an_operation_that_was_not_recorded_never_will_be() -> None:
    """A late write of the first try must not start what the client was told did not happen."""
    store, diary = LossyStore(), Diary()
    runner = a_runner(store, Story("t.go", "Going", (diary.step("a"),)))
    store.lose("request")

    with pytest.raises(Unavailable):
        await runner.accept("t.go", id="one")
    await runner.wait("one")

    assert diary.lines == []
    assert (await stored(store, "one")).error_reason == "NOT_ACCEPTED"
    with pytest.raises(Stale):
        await store.deliver_late()


@pytest.mark.parametrize(("lost", "taken_back"), [("answer", []), ("request", ["gone"])])
async def test_what_lies_ready_is_taken_back_when_it_is_certain_that_nothing_runs(
    lost: str, taken_back: list[str]
) -> None:
    """An upload's files went while its import, recorded with a lost answer, was to be run on them."""
    store, diary, gone = LossyStore(), Diary(), list[str]()

    async def take_back() -> None:
        gone.append("gone")

    runner = a_runner(store, Story("t.go", "Going", (diary.step("a"),)))
    store.lose(lost)
    with pytest.raises(Unavailable):
        await runner.accept("t.go", id="one", if_refused=take_back)
    await runner.wait("one")
    await runner.wait("one")

    assert gone == taken_back
    assert diary.lines == [[], ["a"]][lost == "answer"]


async def test_what_lies_ready_is_taken_back_at_once_from_what_is_refused() -> None:
    store, gone = MemoryStore(), list[str]()

    async def take_back() -> None:
        gone.append("gone")

    runner = a_runner(store, Story("t.go", "Going", ()))
    with pytest.raises(Stale):
        await runner.accept("t.go", txn=Txn().exists("/none"), if_refused=take_back)
    assert gone == ["gone"]


async def test_an_outcome_whose_answer_got_lost_stays_the_outcome() -> None:
    """Writing it again finds its own work, and must not take it for somebody else's."""
    store = LossyStore()

    async def seal(ctx: Context) -> None:
        ctx.txn.absent("/x").put("/x", b"1")
        store.lose("answer")

    runner = a_runner(store, Story("t.go", "Going", (Step("seal", seal),)))
    operation = await runner.accept("t.go", wait=True)

    assert operation.state == "succeeded"
    assert (await stored(store, operation.id)).state == "succeeded"


@pytest.mark.parametrize("lost", ["answer", "request"])
async def test_an_outcome_is_not_written_over_what_others_did_since(lost: str) -> None:
    """A launch ends while etcd hangs, its instance is deleted, and then the launch's try arrives again."""
    store = LossyStore()

    async def seal(ctx: Context) -> None:
        ctx.txn.put("/observed", b"running")
        store.lose(lost)

    runner = a_runner(store, Story("t.go", "Going", (Step("seal", seal),)))
    operation = await runner.accept("t.go", id="one")
    while not (await stored(store, operation.id)).is_final:
        await asyncio.sleep(0.01)
    await store.commit(Txn().delete("/observed"))

    await runner.wait("one")
    if lost == "request":
        with pytest.raises(Stale):
            await store.deliver_late()

    assert await store.get("/observed") is None
    assert runner.get("one").state == "succeeded"


@pytest.mark.parametrize("has_steps", [True, False], ids=["story", "channel"])
async def test_an_outcome_that_others_may_have_read_is_waited_for(*, has_steps: bool) -> None:
    """The state tells a client of an outcome as soon as it tells us; the client's next call may be faster."""
    store, diary = SlowStore(), Diary()
    store.may_answer.set()
    runner = a_runner(store, Story("t.go", "Going", (diary.step("a", block=True),)))
    if has_steps:
        operation = await runner.accept("t.go")
        store.may_answer.clear()
        diary.gate.set()
    else:
        operation = await runner.open("t.run", "Running", op_class=CHANNEL)
        store.may_answer.clear()
        ending = asyncio.create_task(runner.finish(operation.id))
    while not (await stored(store, operation.id)).is_final:
        await asyncio.sleep(0)
    assert not runner.get(operation.id).is_final

    waiting = asyncio.create_task(runner.caught_up(60))
    await asyncio.sleep(0)
    store.may_answer.set()
    await waiting

    assert runner.get(operation.id).is_final
    if not has_steps:
        await ending


async def test_nobody_waits_long_for_an_outcome_that_cannot_be_recorded() -> None:
    store = SlowStore()
    store.may_answer.set()
    runner = a_runner(store)
    operation = await runner.open("t.run", "Running", op_class=CHANNEL)
    store.may_answer.clear()
    ending = asyncio.create_task(runner.finish(operation.id))
    await asyncio.sleep(0)

    async with asyncio.timeout(5):
        await runner.caught_up(0.01)

    store.may_answer.set()
    await ending
