"""Commands inside instances: a process, its channels, and the operation that tells how it ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from core.errors import Invalid, NotFound, PodiumError, TooLate, WrongState, internal
from core.logs import get_logger
from core.operations.operation import CHANNEL, TASK, Operation
from core.operations.runner import Runner
from core.rpc.once import accepted_before, new_operation_id
from services.runtime.domain.target import Target, environment_of, refuse_unless_running
from services.runtime.kernel.gate import Gate
from services.runtime.kernel.processes import Child
from services.runtime.kernel.streams import Reader, big_pipe, resize, until_raw, write_all
from services.runtime.ports import Engine, ExecPlan

log = get_logger(__name__)
_CONNECT_S = 5.0
_LEAVE_S = 1.0
_HOME = "/root"
# execve(2) takes 32 pages, with the NUL; a variable has its name and "=" in them too.
_LONGEST_WORD = (128 << 10) - 512
_END_OF_FILE = b"\x04"  # the line discipline's VEOF; source: termios(3)
_WORDS = {126: "Command not executable", 127: "Command not found"}


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
        self.started = asyncio.Event()
        self.ended = asyncio.Event()
        self.readers: dict[str, Reader] = {}
        self.input = -1
        self.sent: dict[str, asyncio.Event] = {}
        self._gate = gate
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
        return name

    def expire(self) -> None:
        """End what waits for channels that are not connected by now."""
        if not self.complete.is_set():
            self._fail(TooLate("NOT_CONNECTED", "Timed out waiting for websockets to connect"))
            self.kill()

    def _fail(self, failure: PodiumError) -> None:
        self.failure = failure
        self.begun.set()
        self.complete.set()

    def get_ready(self) -> None:
        """Start the process behind its gate. A failure is told when the command should begin."""
        try:
            _start_now(self, {})
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
            )
            self._status = asyncio.ensure_future(self._process.wait())
        finally:
            for fd in set(theirs):
                os.close(fd)
            self.started.set()

    def _terminal(self) -> tuple[int, int, int]:
        ours, theirs = os.openpty()
        resize(ours, self.command.width, self.command.height)
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
        for name in ("1", "2"):
            ours, other = big_pipe()
            self._owned.append(ours)
            self._read(name, ours)
            theirs.append(other)
        return theirs[0], theirs[1], theirs[2]

    def _read(self, name: str, fd: int) -> None:
        self.readers[name] = Reader(fd, terminal=self.command.interactive)
        self.sent[name] = asyncio.Event()

    async def wait(self) -> int:
        """Let the command begin, and return its exit status: 128+n when signal n ended it."""
        assert self._status
        if self._gate:
            await self._gate.open(self._status)
        status = await self._status
        for reader in self.readers.values():
            reader.finish()
        return 128 - status if status < 0 else status

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
            with contextlib.suppress(ProcessLookupError, PermissionError):
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
        for fd in self._owned:
            with contextlib.suppress(OSError):
                os.close(fd)
        self._owned.clear()
        self.input = -1


def _children(pid: int) -> list[int]:
    try:
        return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


class Execs:
    """All commands that run for clients of this service."""

    def __init__(self, find: Callable[[str, str], Target], engine: Engine, runner: Runner) -> None:
        self._find = find
        self._engine = engine
        self._runner = runner
        self._sessions: dict[str, Session] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, project: str, name: str, command: Command) -> Operation:
        """Accept *command*. Raises: NotFound, WrongState, Invalid."""
        target = self._find(project, name)
        refuse_unless_running(target)
        _refuse_what_cannot_run(command, target)
        environment = environment_of(command.environment, target.config, command.user)
        folder = command.cwd or environment.get("HOME", "/")
        plan = ExecPlan(
            tuple(command.argv),
            environment,
            command.user,
            command.group,
            "/" if folder == _HOME else folder,
        )
        id = self._new_id()
        gate = self._gate(target, id) if command.channels else None
        argv = self._engine.exec_argv(
            target.id, plan, terminal=command.interactive, config=gate.path if gate else None
        )
        shown = {
            "command": command.argv,
            "environment": environment,
            "interactive": command.interactive,
        }
        session = Session(id, argv, command, gate=gate)
        # lxc-attach starts the command in the folder of the same name as its own; saves a shell.
        session.folder = _HOME if folder == _HOME else "/"
        opening = asyncio.ensure_future(
            self._open(session, target, "instance.exec", "Executing command", shown)
        )
        if gate:
            await _sent(opening)
            session.get_ready()  # while etcd writes and the client connects its channels
        try:
            return await opening
        except BaseException:
            session.kill()
            session.close()
            raise

    async def console(self, project: str, name: str, width: int, height: int) -> Operation:
        """Attach to the console. Raises: NotFound, WrongState."""
        target = self._find(project, name)
        refuse_unless_running(target)
        await self._refuse_taken_console(target)
        command = Command([], interactive=True, width=width, height=height)
        argv = self._engine.console_argv(target.id)
        session = Session(self._new_id(), argv, command, console=target.id)
        return await self._open(session, target, "instance.console", "Showing console", {})

    async def _refuse_taken_console(self, target: Target) -> None:
        """Raises: WrongState while another client has it; one that is leaving gets a moment."""
        for other in [s for s in self._sessions.values() if s.console == target.id]:
            try:
                async with asyncio.timeout(_LEAVE_S):
                    await other.ended.wait()
            except TimeoutError:
                words = "The console is in use by another client; leave it there with ctrl-a q"
                raise WrongState("CONSOLE_TAKEN", words, about=target.name) from None

    def _new_id(self) -> str:
        """Raises: AlreadyExists when the same request is being carried out already."""
        id = new_operation_id()
        if id in self._sessions:
            raise accepted_before(id)
        return id

    def _gate(self, target: Target, id: str) -> Gate:
        try:
            return Gate(target.folder, id, self._engine.exec_config(target.id))
        except FileNotFoundError:  # it ended this very moment
            raise WrongState("NOT_RUNNING", "Instance is not running", about=target.name) from None

    def session(self, operation_id: str) -> Session:
        """Raises: NotFound."""
        session = self._sessions.get(operation_id)
        if session is None:
            raise NotFound("NO_OPERATION", "Operation not found", about=operation_id)
        return session

    async def stop(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _open(
        self, session: Session, target: Target, kind: str, words: str, shown: dict[str, object]
    ) -> Operation:
        self._sessions[session.id] = session
        metadata = {**shown, "fds": session.fds} if session.fds else shown
        operation = await self._runner.open(
            kind,
            words,
            op_class=CHANNEL if session.fds else TASK,
            project=target.project,
            resources={"instances": (target.name,)},
            metadata=metadata,
            id=session.id,
        )
        # Owned by this object until stop(): the command outlives the request that asked for it.
        task = asyncio.create_task(self._live(session, target))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return operation

    async def _live(self, session: Session, target: Target) -> None:
        error: PodiumError | None = None
        result: dict[str, object] = {}
        try:
            if session.fds:
                asyncio.get_running_loop().call_later(_CONNECT_S, session.expire)
                await session.begun.wait()
            result = await self._ran(session, target)
            words = _WORDS.get(int(str(result.get("return", 0))), "")
            if words and not session.console:
                error = WrongState("COMMAND", words, about=target.name)
        except PodiumError as exc:
            error = exc
        except Exception:
            log.exception("command_crashed", operation=session.id)
            error = internal()
        finally:
            session.started.set()
            session.ended.set()
            session.kill()
            session.close()
            self._sessions.pop(session.id, None)
        if error:
            await self._runner.fail(session.id, error, metadata=result)
        else:
            await self._runner.finish(session.id, metadata=result)

    async def _ran(self, session: Session, target: Target) -> dict[str, object]:
        if session.failure:
            raise session.failure
        if session.is_abandoned:
            raise WrongState("CLIENT_GONE", "The client went away before the command began")
        files = _record_files(session, target) if session.command.record else {}
        if not session.started.is_set():
            _start_now(session, {name: _create(path) for name, path in files.items()})
        if self._engine.pid(target.id) != target.pid:
            # liblxc's socket is anybody's to make again: lxc-attach would enter what a user of the host says.
            raise WrongState("NOT_RUNNING", "Instance is not running", about=target.name)
        status = await session.wait()
        if session.fds:
            await session.complete.wait()
        if session.failure:
            raise session.failure
        await _flushed(session)
        if session.console:
            return {}
        if files:
            return {"return": status, "output": {name: path.name for name, path in files.items()}}
        return {"return": status}


def _refuse_what_cannot_run(command: Command, target: Target) -> None:
    """Raises: Invalid for what the kernel would refuse or the instance does not have."""
    if not command.argv or any("\0" in part for part in command.argv):
        raise Invalid("NO_COMMAND", "A command is needed, without NUL in it", about=target.name)
    for word in (*command.argv, *command.environment.values(), command.cwd):
        if len(word.encode(errors="replace")) > _LONGEST_WORD:
            raise Invalid(
                "TOO_LONG", f"A word of a command holds at most {_LONGEST_WORD} bytes: {word[:40]!r}"
            )
    for id in (command.user, command.group):
        if id >= target.idmap_size:
            raise Invalid("BAD_ID", f"Id {id} is outside the instance's range of {target.idmap_size}")


def _start_now(session: Session, output: dict[str, int]) -> None:
    try:
        session.start(output)
    except OSError as exc:
        raise WrongState("NOT_STARTED", f"The command could not be started: {exc.strerror}") from exc


async def _sent(commit: asyncio.Future[Operation]) -> None:
    """Let a commit go out before something that blocks: grpc sends in the second turn of the loop."""
    for _ in range(2):
        if not commit.done():
            await asyncio.sleep(0)


async def _flushed(session: Session) -> None:
    """Wait until what the command wrote was sent on; a client that is gone is not waited for."""
    waits = [event.wait() for name, event in session.sent.items() if name in session.connected]
    await asyncio.gather(*waits)


def _record_files(session: Session, target: Target) -> dict[str, Path]:
    target.logs.mkdir(parents=True, exist_ok=True)
    return {
        "1": target.logs / f"exec_{session.id}.stdout",
        "2": target.logs / f"exec_{session.id}.stderr",
    }


def _create(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
