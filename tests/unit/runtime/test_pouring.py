"""Files through pipes lent to a gateway: the real line between the two, and real files."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from core.descriptors import Reader, write_all
from core.errors import PodiumError
from core.operations.runner import Runner
from core.state.memory import MemoryStore
from gateway.lent import Lender, Ticket
from services.runtime.domain.idmaps import id_map
from services.runtime.domain.target import Target
from services.runtime.kernel.patience import Descriptor, Patience
from services.runtime.servicer.lending import Lending
from services.runtime.servicer.pouring import pour_in, pour_out
from services.runtime.usecases.inside.exec import Execs
from tests.fakes.runtime_host import FakeEngine

_DATA = os.urandom(5 << 20)


class Two:
    """A runtime and a gateway, and the line between them."""

    def __init__(self, folder: Path) -> None:
        target = Target("id", "default", "web", "running", pid=1, idmap=id_map(1_000_000), folder=folder)
        execs = Execs(lambda p, n: target, FakeEngine(), Runner(MemoryStore(), service="r", member="m"))
        self.lending, self.lender = Lending(folder / "line", execs), Lender(folder / "line")
        self.patience = Patience()

    async def call(self, *args: object) -> object:
        return await self.patience.call("id", *args)  # type: ignore[arg-type]

    async def line(self, ticket: Ticket) -> object:
        while ticket.line not in self.lending.lines:
            await asyncio.sleep(0.01)
        return self.lending.lines[ticket.line]


@pytest.fixture
async def two(tmp_path: Path) -> AsyncIterator[Two]:
    made = Two(tmp_path)
    await made.lending.start()
    yield made
    made.lender.close()
    await made.lending.stop()


def _opened(path: Path, flags: int) -> Descriptor:
    return Descriptor(os.open(path, flags | os.O_CLOEXEC))


async def test_a_file_arrives_whole_also_at_a_slow_reader(two: Two, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(_DATA)
    file, found = _opened(tmp_path / "f", os.O_RDONLY), b""
    with two.lender.ticket() as ticket:
        pouring = asyncio.create_task(pour_out(two.call, file, "f", await two.line(ticket), ticket.id))
        reader = Reader(await ticket.pipe)
        await asyncio.sleep(0.05)  # meanwhile the pipe is full, and no thread is held
        while data := await reader.read():
            found += data
        reader.close()
        await pouring
    file.close()
    assert found == _DATA


async def test_a_reader_that_goes_ends_it_without_an_error(two: Two, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(_DATA)
    file = _opened(tmp_path / "f", os.O_RDONLY)
    with two.lender.ticket() as ticket:
        pouring = asyncio.create_task(pour_out(two.call, file, "f", await two.line(ticket), ticket.id))
        await ticket.pipe
    await asyncio.wait_for(pouring, 5)
    file.close()


async def test_what_is_sent_is_written_until_the_end(two: Two, tmp_path: Path) -> None:
    file = _opened(tmp_path / "f", os.O_WRONLY | os.O_CREAT)
    with two.lender.ticket() as ticket:
        pouring = asyncio.create_task(pour_in(two.call, file, "f", await two.line(ticket), ticket.id))
        pipe = await ticket.pipe
        for start in range(0, len(_DATA), 1 << 18):
            assert await write_all(pipe, _DATA[start : start + (1 << 18)])
            await asyncio.sleep(0.002)
        ticket.close()
        await asyncio.wait_for(pouring, 5)
    file.close()
    assert (tmp_path / "f").read_bytes() == _DATA


async def test_a_file_that_cannot_grow_ends_both_sides_and_says_so(two: Two) -> None:
    """As on a pool without space."""
    fd = os.memfd_create("full", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW)
    file = Descriptor(fd)
    with two.lender.ticket() as ticket:
        pouring = asyncio.create_task(pour_in(two.call, file, "f", await two.line(ticket), ticket.id))
        pipe = await ticket.pipe
        assert not await write_all(pipe, bytes(4 << 20))
        with pytest.raises(PodiumError, match="Operation not permitted"):
            await pouring
    file.close()


async def test_a_file_that_takes_no_pages_is_written_all_the_same(two: Two) -> None:
    file = _opened(Path("/dev/full"), os.O_WRONLY)
    with two.lender.ticket() as ticket:
        pouring = asyncio.create_task(pour_in(two.call, file, "f", await two.line(ticket), ticket.id))
        await write_all(await ticket.pipe, bytes(100))
        with pytest.raises(PodiumError, match="No space left"):
            await pouring
    file.close()


async def test_without_a_runtime_of_this_host_there_is_no_line(tmp_path: Path) -> None:
    """Two at once share no name that both would give back."""
    lender = Lender(tmp_path / "nobody")
    with lender.ticket() as one, lender.ticket() as other:
        assert (one.line, other.line) == ("", "")
