"""Commands inside instances: a process, its channels, and the operation that tells how it ended."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

from core.errors import Invalid, NotFound, PodiumError, WrongState, internal
from core.logs import get_logger
from core.operations.operation import CHANNEL, TASK, Operation
from core.operations.runner import Runner
from core.rpc.once import accepted_before, new_operation_id, ticket_for
from services.runtime.domain.target import Target, environment_of, refuse_unless_running
from services.runtime.kernel.gate import Gate
from services.runtime.ports import Engine, ExecPlan
from services.runtime.usecases.inside.recording import Recording
from services.runtime.usecases.inside.session import Borrower, Command, Session, start_now

log = get_logger(__name__)
_CONNECT_S = 5.0
_LEAVE_S = 1.0
_HOME = "/root"
# execve(2) takes 32 pages, with the NUL; a variable has its name and "=" in them too.
_LONGEST_WORD = (128 << 10) - 512
# lxc-attach joins the instance's cgroup before it makes the process of the command.
_TO_ENTER = 2
_WORDS = {126: "Command not executable", 127: "Command not found"}


class Execs:
    """All commands that run for clients of this service."""

    def __init__(
        self,
        find: Callable[[str, str], Target],
        engine: Engine,
        runner: Runner,
        *,
        count: Callable[[str], int] = lambda id: 0,
    ) -> None:
        """count: says how many processes the instance of an id has."""
        self._find = find
        self._count = count
        self._engine = engine
        self._runner = runner
        self._sessions: dict[str, Session] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(
        self, project: str, name: str, command: Command, borrower: Borrower | None = None
    ) -> Operation:
        """Accept *command*; *borrower* gets the ends of its pipes. Raises: NotFound, WrongState, Invalid."""
        target = self._find(project, name)
        refuse_unless_running(target)
        _refuse_what_cannot_run(command, target)
        await self._refuse_full(target)
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
        try:
            argv = self._engine.exec_argv(
                target.id, plan, terminal=command.interactive, config=gate.path if gate else None
            )
        except PodiumError:  # a name that no variable can have
            if gate:
                gate.close()
            raise
        shown = {
            "command": command.argv,
            "environment": environment,
            "interactive": command.interactive,
        }
        owner = target.idmap.owner(command.user, command.group)
        program = self._engine.program(argv)
        session = Session(id, argv, command, gate=gate, owner=owner, program=program)
        # lxc-attach starts the command in the folder of the same name as its own; saves a shell.
        session.folder = _HOME if folder == _HOME else "/"
        if not session.is_lendable:
            borrower = None
        # A request that must be carried out once has its record before its answer.
        is_told = borrower is not None and ticket_for(id) is None
        opening = asyncio.ensure_future(
            self._open(session, target, "instance.exec", "Executing command", shown, is_told=is_told)
        )
        if gate:
            await _sent(opening)
            session.get_ready()  # while etcd writes and the client connects its channels
            if borrower:
                session.lend(borrower)
        try:
            return await opening
        except BaseException:
            session.end()
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

    async def _refuse_full(self, target: Target) -> None:
        """Raises: WrongState where the kernel would not let a command begin, and nobody were told why."""
        if not (most := target.config.get("limits.processes")):
            return
        has = await asyncio.to_thread(self._count, target.id)
        if has + _TO_ENTER > int(most):
            why = f"it has {has} processes, and limits.processes is {most}; raise that or end some"
            raise WrongState("TOO_MANY_PROCESSES", f"Command cannot start: {why}", about=target.name)

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

    def give_up(self, borrower: Borrower) -> None:
        """*borrower* is gone, and its clients with it."""
        for session in [s for s in self._sessions.values() if s.borrower is borrower]:
            session.abandon()

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
        self,
        session: Session,
        target: Target,
        kind: str,
        words: str,
        shown: dict[str, object],
        *,
        is_told: bool = False,
    ) -> Operation:
        """is_told: the client hears of begin and end by who moves the bytes, so the record may come later."""
        self._sessions[session.id] = session
        # Without channels there is nothing to tell before it has ended.
        metadata = {**shown, "fds": session.fds} if session.fds else {}
        about: dict[str, Any] = {
            "project": target.project,
            "resources": {"instances": (target.name,)},
            "metadata": metadata,
            "id": session.id,
        }
        if is_told:
            operation = self._runner.begin(kind, words, **about)
        else:
            op_class = CHANNEL if session.fds else TASK
            operation = await self._runner.open(kind, words, op_class=op_class, **about)
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
            if error:
                await _attended(session)
            session.end()
            self._sessions.pop(session.id, None)
        if error:
            await self._runner.fail(session.id, error, metadata=result, before=session.tell_outcome)
        else:
            await self._runner.finish(session.id, metadata=result, before=session.tell_outcome)

    async def _ran(self, session: Session, target: Target) -> dict[str, object]:
        if session.failure:
            raise session.failure
        if session.is_abandoned:
            raise WrongState("CLIENT_GONE", "The client went away before the command began")
        if not session.fds:
            return await self._unheard(session, target)
        if not session.started.is_set():
            start_now(session, {})
        status = await self._status(session, target)
        await session.complete.wait()
        if session.failure:
            raise session.failure
        await _flushed(session)
        return {} if session.console else {"return": status}

    async def _unheard(self, session: Session, target: Target) -> dict[str, object]:
        """Run a command without channels. What it says is kept if that was asked for."""
        if not session.command.record:
            start_now(session, {})
            return {"return": await self._status(session, target)}
        recording = Recording(target.logs, session.id)
        try:
            start_now(session, recording.outputs)
            status = await self._status(session, target)
            await recording.finish()
        finally:
            await recording.close()
        return {"return": status, "output": recording.names}

    async def _status(self, session: Session, target: Target) -> int:
        if self._engine.pid(target.id) != target.pid:
            # liblxc's socket is anybody's to make again: lxc-attach would enter what a user of the host says.
            raise WrongState("NOT_RUNNING", "Instance is not running", about=target.name)
        return await session.wait()


def _refuse_what_cannot_run(command: Command, target: Target) -> None:
    """Raises: Invalid for what the kernel would refuse or the instance does not have."""
    if not command.argv or any("\0" in part for part in command.argv):
        raise Invalid("NO_COMMAND", "A command is needed, without NUL in it", about=target.name)
    for word in (*command.argv, *command.environment.values(), command.cwd):
        if len(word.encode(errors="replace")) > _LONGEST_WORD:
            raise Invalid(
                "TOO_LONG", f"A word of a command holds at most {_LONGEST_WORD} bytes: {word[:40]!r}"
            )
    target.idmap.owner(command.user, command.group)


async def _sent(commit: asyncio.Future[Operation]) -> None:
    """Let a commit go out before something that blocks: grpc sends in the second turn of the loop."""
    for _ in range(2):
        if not commit.done():
            await asyncio.sleep(0)


async def _attended(session: Session) -> None:
    """Wait a moment for channels on their way: a client that is refused one tells of that alone."""
    if session.fds:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LEAVE_S):
                await session.attended.wait()


async def _flushed(session: Session) -> None:
    """Wait until what the command wrote was sent on; a client that is gone is not waited for."""
    waits = [event.wait() for name, event in session.sent.items() if name in session.connected]
    await asyncio.gather(*waits)
