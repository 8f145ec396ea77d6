"""Uploads count in limits.disk of their project while they arrive."""

from __future__ import annotations

import pytest

from core.errors import LimitReached
from core.records import Project
from core.state import keys
from core.state.memory import MemoryStore
from core.state.store import Txn
from services.image.usecases.rooms import Rooms


class Sums:
    """Leaves ten bytes to every project, and knows who asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def room(self, project: str) -> int | None:
        self.asked.append(project)
        return 10


@pytest.fixture
async def rooms() -> Rooms:
    store = MemoryStore()
    txn = Txn().put(keys.project("free"), Project("free"))
    await store.commit(txn.put(keys.project("tight"), Project("tight", "", {"limits.disk": "10"})))
    return Rooms(store, Sums())  # type: ignore[arg-type]


async def test_what_arrives_at_once_shares_the_room(rooms: Rooms) -> None:
    async with rooms.counted("tight") as one:
        one(6)
        async with rooms.counted("tight") as other:
            other(4)
            with pytest.raises(LimitReached, match=r'"10" for "limits\.disk" in project "tight"'):
                other(1)
        one(4)
    async with rooms.counted("tight") as count:
        count(10)


async def test_a_project_without_limit_asks_nobody(rooms: Rooms) -> None:
    """So its uploads need no other service."""
    async with rooms.counted("free") as count:
        count(1 << 40)
    assert rooms._roots.asked == []  # type: ignore[attr-defined]
