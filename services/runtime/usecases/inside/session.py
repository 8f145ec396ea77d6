"""A command, the process that carries it out, and the descriptors of its channels."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from core.descriptors import Reader, big_pipe, write_all
from core.errors import NotFound, PodiumError, TooLate, WrongState
from core.operations import outcomes
from core.operations.operation import Operation
from services.runtime.kernel.gate import Gate
from services.runtime.kernel.processes import Child
from services.runtime.kernel.terminals import own_terminal, resize, until_raw

_END_OF_FILE = b"\x04"  # the line discipline's VEOF; source: termios(3)
_OUTPUTS = ("1", "2")
# Of a terminal whose size the client does not know; LXD's.
_WIDTH, _HEIGHT = 80, 25


class Borrower(Protocol):
    """Who moves a command's bytes in our place; see core.rpc.line."""

    def tell(self, *words: str, fds: Sequence[int] = ()) -> bool: ...


@dataclass(frozen=True)
class Command:
    """What to run. Without *channels* its output goes nowhere, or to files with *record*."""

    argv: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    interactive: bool = False
    width: int = 0
    height: int = 0
    user: int = 0
    group: int = 0
    cwd: str = ""
    record: bool = False
    channels: bool = True


class Session:
    """A process and the descriptors its channels carry. Used once."""

    def __init__(
        self,
        operation_id: str,
        argv: list[str],
        command: Command,
        *,
        gate: Gate | None = None,
        console: str = "",
        owner: tuple[int, int] = (0, 0),
        program: str | None = None,
    ) -> None:
        self.id = operation_id
        self.argv = argv
        self.command = command
        self.folder = "/"
        self.console = console
        """The id of the instance whose console this is, if it is one."""
        names = ["0", "control"] if command.interactive else ["0", "1", "2", "control"]
        self.secrets = {secrets.token_hex(32): name for name in names} if command.channels else {}
        self.fds = {name: secret for secret, name in self.secrets.items()}
        self.needed = {"0", "control"} if command.interactive else {"0", "1", "2"}
        self.connected: set[str] = set()
        self.begun = asyncio.Event()
        """The client is here: it connects its channels one by one, and this is the first of the data."""
        self.complete = asyncio.Event()
        self.attended = asyncio.Event()
        """Each channel has connected, or nobody is there any more to do so."""
        self.started = asyncio.Event()
        self.ended = asyncio.Event()
        self.readers: dict[str, Reader] = {}
        self.input = -1
        self.sent: dict[str, asyncio.Event] = {}
        self.borrower: Borrower | None = None
        self._gate = gate
        self._owner = owner
        self._program = program
        self._process: Child | None = None
        self._status: asyncio.Future[int] | None = None
        self._owned: list[int] = []
        self._is_raw = False
        self.is_abandoned = False
        self.failure: PodiumError | None = None

    def connect(self, secret: str) -> str:
        """Return the channel of *secret*, which connects once. Raises: NotFound."""
        name = self.secrets.pop(secret, "")
        if not name:
            raise NotFound("NO_CHANNEL", "No channel of this operation has that secret")
        self.connected.add(name)
        if name == "0":
            self.begun.set()
        if not self.needed & set(self.secrets.values()):
            self.complete.set()  # each has come, though some may have gone again
            self.attended.set()
        return name

    def lose(self, name: str, *, complete: bool) -> None:
        """A data channel is gone; standard output takes a command along that was not done with it."""
        self.connected.discard(name)
        if name in self.sent:
            self.sent[name].set()
        if not complete and (name == "1" or self.command.interactive):
            self.kill()

    def expire(self) -> None:
        """End what waits for channels that are not connected by now."""
        if not self.complete.is_set():
            self.attended.set()
            self._fail(TooLate("NOT_CONNECTED", "Timed out waiting for websockets to connect"))
            self.kill()

    def _fail(self, failure: PodiumError) -> None:
        self.failure = failure
        self.begun.set()
        self.complete.set()

    def get_ready(self) -> None:
        """Start the process behind its gate. A failure is told when the command should begin."""
        try:
            start_now(self, {})
        except WrongState as exc:
            self._fail(exc)

    def start(self, output: dict[str, int]) -> None:
        """Start the process; it waits at the gate if there is one. *output*: descriptors to write to."""
        theirs = self._terminal() if self.command.interactive else self._pipes(output)
        try:
            self._process = Child(
                self.argv,
                stdin=theirs[0],
                stdout=theirs[1],
                stderr=theirs[2],
                cwd=self.folder,
                new_session=not self.command.interactive,
                program=self._program,
            )
            self._status = asyncio.ensure_future(self._process.wait())
        finally:
            for fd in set(theirs):
                os.close(fd)
            self.started.set()

    def _terminal(self) -> tuple[int, int, int]:
        ours, theirs = os.openpty()
        resize(ours, self.command.width or _WIDTH, self.command.height or _HEIGHT)
        os.set_blocking(ours, False)
        self._owned.append(ours)
        self.input = ours
        self._read("0", ours)
        return theirs, theirs, theirs

    def _pipes(self, output: dict[str, int]) -> tuple[int, int, int]:
        if not self.command.channels:
            null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            return null, output.get("1", null), output.get("2", null)
        theirs_in, ours_in = big_pipe()
        os.set_blocking(ours_in, False)
        self.input = ours_in
        self._owned.append(ours_in)
        theirs = [theirs_in]
        for name in _OUTPUTS:
            ours, other = big_pipe()
            self._owned.append(ours)
            self._read(name, ours)
            theirs.append(other)
        for fd in theirs:
            with contextlib.suppress(PermissionError):
                os.fchown(fd, *self._owner)  # so that it may open /dev/stderr, which is checked again
        return theirs[0], theirs[1], theirs[2]

    def _read(self, name: str, fd: int) -> None:
        self.readers[name] = Reader(fd, terminal=self.command.interactive)
        self.sent[name] = asyncio.Event()

    async def wait(self) -> int:
        """Let the command begin, and return its exit status: 128+n when signal n ended it."""
        assert self._status
        if self._gate:
            await self._gate.open(self._status)
        status = await self._ended(self._status)
        if self.borrower:
            self.borrower.tell("ended", self.id)
        for reader in self.readers.values():
            reader.finish()
        return 128 - status if status < 0 else status

    async def _ended(self, status: asyncio.Future[int]) -> int:
        if not self.command.interactive or self.console:
            return await status
        assert self._process
        owning = asyncio.to_thread(own_terminal, self._process.pid, self._owner[0], lambda: not status.done())
        return (await asyncio.gather(status, owning))[0]

    @property
    def is_lendable(self) -> bool:
        """Whether who moves its bytes could do so by pipes."""
        return bool(self.fds) and not self.command.interactive

    def lend(self, borrower: Borrower) -> None:
        """Give our ends of the pipes away, if there are any.

        The borrower tells of each channel that connects, when all output was sent, and when the client
        is gone; it is told when the command ended, when the operation is over, and how that ended.
        """
        if not self.readers:
            return
        ends = [self.input, *(self.readers[name].fd for name in _OUTPUTS)]
        if not borrower.tell("lent", self.id, fds=ends):
            return
        self.borrower = borrower
        self._close_input()
        for reader in self.readers.values():
            reader.close()
        self._close_owned()
        self.readers.clear()

    def abandon(self) -> None:
        """The client is gone, or who lent the channels: nobody takes the output any more."""
        for event in self.sent.values():
            event.set()
        self.complete.set()
        self.attended.set()
        self.begun.set()
        self.kill()

    def flushed(self) -> None:
        """All output was sent on."""
        for event in self.sent.values():
            event.set()

    def end(self) -> None:
        self.ended.set()
        self.kill()
        self.close()
        if self.borrower:
            self.borrower.tell("over", self.id)

    def tell_outcome(self, final: Operation) -> None:
        """Tell the borrower how the operation ended, before the state is told."""
        if self.borrower:
            self.borrower.tell("outcome", self.id, outcomes.encode(final))

    async def write(self, data: bytes) -> bool:
        if self.command.interactive and not self._is_raw:
            await until_raw(self.input, self._is_running)
            self._is_raw = True
        return self.input >= 0 and await write_all(self.input, data)

    def _is_running(self) -> bool:
        return self._process is not None and self._process.is_running and self.input >= 0

    async def end_input(self) -> None:
        """No more input will come. A terminal says so by its end-of-file character, and stays open."""
        if self.command.interactive:
            await self.write(_END_OF_FILE)
        else:
            self._close_input()

    def hang_up(self) -> None:
        """The client is gone."""
        if self.command.interactive:
            self.signal(signal.SIGHUP)
        else:
            self._close_input()

    def _close_input(self) -> None:
        if self.input >= 0:
            self._owned.remove(self.input)
            os.close(self.input)
            self.input = -1

    def resize(self, width: int, height: int) -> None:
        if self.command.interactive and self.input >= 0:
            resize(self.input, width, height)

    def signal(self, number: int) -> None:
        """Send a signal to the command itself, which is the child of the program that entered."""
        if not self._process or not self._process.is_running:
            return
        for pid in _children(self._process.pid) or [self._process.pid]:
            with contextlib.suppress(OSError):  # it has ended, or there is no such signal
                os.kill(pid, number)

    def kill(self) -> None:
        """End the command, or see to it that it never begins."""
        self.is_abandoned = True
        if self._process:
            self.signal(signal.SIGKILL)
            self._process.kill()

    def close(self) -> None:
        if self._gate:
            self._gate.close()
        for reader in self.readers.values():
            reader.close()
        self._close_owned()
        self.input = -1

    def _close_owned(self) -> None:
        for fd in self._owned:
            with contextlib.suppress(OSError):
                os.close(fd)
        self._owned.clear()


def _children(pid: int) -> list[int]:
    try:
        return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def start_now(session: Session, output: dict[str, int]) -> None:
    try:
        session.start(output)
    except OSError as exc:
        raise WrongState("NOT_STARTED", f"The command could not be started: {exc.strerror}") from exc
