"""Ended operations are kept for a while, in bounded memory and in a bounded state."""

from __future__ import annotations

from core.operations.history import History
from core.operations.operation import SUCCEEDED, Operation

DAY_S = 24 * 3600.0


def an_ended_operation(id: str, at: float = 0.0) -> Operation:
    return Operation(
        id=id, service="runtime", member="m", kind="k", description="", state=SUCCEEDED, updated_at=at
    )


def test_memory_holds_the_newest_only() -> None:
    history = History(in_memory=2)

    dropped = [id for n in "abc" for id in history.add(an_ended_operation(n))]

    assert dropped == ["a"]
    assert history.find("a") is None
    assert history.find("c") is not None


def test_what_is_too_old_leaves_the_state() -> None:
    history = History()
    for n, at in (("old", 0.0), ("new", 5 * DAY_S)):
        history.add(an_ended_operation(n, at))

    assert history.take_expired(5 * DAY_S) == ["old"]
    assert history.take_expired(5 * DAY_S) == []


def test_what_is_too_much_leaves_the_state_a_few_at_a_time() -> None:
    """A transaction has room for 128 writes, and each end of an operation brings one more record."""
    history = History(keep_count=3)
    for n in range(10):
        history.add(an_ended_operation(str(n)))

    assert history.take_expired(0.0, most=4) == ["0", "1", "2", "3"]
    assert history.take_expired(0.0, most=4) == ["4", "5", "6"]
    assert history.take_expired(0.0, most=4) == []
