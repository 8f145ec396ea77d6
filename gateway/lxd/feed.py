"""What events websockets are told: operations and life-cycle events, each made into text once.

All listeners share one follower of the state's history. Who names a revision to go on from has a
follower of its own, since past and present of one watch have no seam. What either cannot tell any
more because history was compacted ends the connection: silence would look like completeness.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import orjson
from aiohttp import web

from core.errors import Invalid, Unavailable
from core.events import Event, EventBatch
from core.logs import get_logger
from core.names import in_project
from core.operations.operation import Operation
from core.state import codec, keys
from core.state.store import Change, Commit, HistoryStore
from gateway.lxd import request as req
from gateway.lxd.codes import time_text
from gateway.lxd.views.operations import operation_json, without_secrets

log = get_logger(__name__)
_PREFIXES = (keys.EVENTS, keys.OPERATIONS)
_MAX_BACKLOG = 10_000
# Of one status each, which the state is told of within a second; what is forgotten is told twice.
_MAX_EARLY = 4096
_RETRY_S = 0.5
_CURSOR = re.compile(r"(\d{1,18})(?:\.(\d{1,4}))?", re.ASCII)


class Cursor(NamedTuple):
    """How far a client has seen: all up to *revision*, or only the first *part* messages of it."""

    revision: int
    part: int | None = None

    def __str__(self) -> str:
        return str(self.revision) if self.part is None else f"{self.revision}.{self.part}"


def parse_cursor(text: str) -> Cursor:
    """Raises: Invalid."""
    found = _CURSOR.fullmatch(text)
    if not found or not int(found[1]):
        raise Invalid(
            "BAD_SINCE", f"since must be the revision or cursor of an event, not {text[:40]!r}", about="since"
        )
    return Cursor(int(found[1]), int(found[2]) if found[2] else None)


@dataclass(frozen=True)
class Message:
    """What is told of one change. *cursor* is None for what is no change of the state.

    owner: who started the operation it tells of, and may use the secrets in it.
    """

    kind: str
    project: str
    metadata: dict[str, Any]
    at: float
    owner: str = ""
    cursor: Cursor | None = None

    @cached_property
    def line(self) -> str:
        return self._line(self.metadata)

    @cached_property
    def harmless(self) -> str:
        """The line without secrets."""
        if not self.metadata.get("metadata"):
            return self.line
        return self._line({**self.metadata, "metadata": without_secrets(self.metadata["metadata"])})

    def _line(self, metadata: dict[str, Any]) -> str:
        body: dict[str, Any] = {
            "type": self.kind,
            "timestamp": time_text(self.at),
            "metadata": metadata,
            "location": "none",
        }
        if self.project:
            body["project"] = self.project
        if self.cursor:
            body |= {"revision": self.cursor.revision, "cursor": str(self.cursor)}
        return orjson.dumps(body, option=orjson.OPT_APPEND_NEWLINE).decode()


class Listener:
    """One events websocket: what it wants, and what waits for it. reader: who it is, if confined."""

    def __init__(
        self,
        types: frozenset[str],
        project: str,
        hang_up: Callable[[], None],
        *,
        reader: str | None = None,
        since: Cursor | None = None,
    ) -> None:
        self.queue: asyncio.Queue[str | None] = asyncio.Queue(_MAX_BACKLOG)
        self.since = since
        self.has_lost = False
        self._types = types
        self._project = project
        self._hang_up = hang_up
        self._reader = reader

    def wants(self, kind: str, project: str) -> bool:
        """Say whether an event concerns it. What belongs to no project is for all but the confined."""
        if kind not in self._types:
            return False
        if self._reader is not None:
            return project == self._project
        return not self._project or not project or project == self._project

    def tell(self, message: Message) -> None:
        """Queue what concerns it; who does not read is disconnected, since a gap would be worse."""
        if self.wants(message.kind, message.project):
            self._put(self._line(message))

    async def tell_patiently(self, message: Message) -> None:
        """Queue what concerns it, when there is room: history waits for its reader."""
        if self.wants(message.kind, message.project):
            await self.queue.put(self._line(message))

    def _line(self, message: Message) -> str:
        return message.line if self._reader in (None, message.owner) else message.harmless

    def lose(self) -> None:
        """Disconnect it after what it was told: what came next is not known any more."""
        self.has_lost = True
        self._put(None)

    def _put(self, line: str | None) -> None:
        try:
            self.queue.put_nowait(line)
        except asyncio.QueueFull:
            self._hang_up()


class Feed:
    """Everybody who listens, and the one follower for those who listen from now on.

    before: takes each change of an operation before anybody is told of it. The stock client asks for its
    operation once and then waits to be told; were the answer older than what it was told while it asked,
    it would wait for ever.
    """

    def __init__(self, store: HistoryStore, before: Callable[[Change], None] = lambda change: None) -> None:
        self._store = store
        self._before = before
        self._listeners: set[Listener] = set()
        self._early: OrderedDict[tuple[str, str], frozenset[Listener]] = OrderedDict()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Return when nothing that follows can be missed; waits for etcd."""
        is_following = asyncio.Event()
        # Owned by this feed until stop().
        self._task = asyncio.create_task(self._run(is_following), name="events feed")
        await is_following.wait()

    async def stop(self) -> None:
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def open(self, listener: Listener) -> AsyncGenerator[Message, None] | None:
        """Register *listener*; return what it has to be told besides, if it names where to go on.

        Raises: Gone, Invalid, Unavailable.
        """
        past = await self._past(listener.since) if listener.since else None
        self._listeners.add(listener)
        return past

    async def _past(self, since: Cursor) -> AsyncGenerator[Message, None]:
        commits = await self._store.history(_PREFIXES, since.revision)
        if since.part is not None:
            # The question above refused a revision yet to come, whose first part nobody can have seen.
            commits = await self._store.history(_PREFIXES, since.revision - 1)
        return _rest(commits, since)

    def close(self, listener: Listener) -> None:
        self._listeners.discard(listener)

    def tell(self, message: Message) -> None:
        """Tell all of what is no change of the state."""
        for listener in self._listeners:
            listener.tell(message)

    def tell_early(self, operation: Operation) -> None:
        """Tell of a change that the state will be told of later, or never: who hears it now does not then."""
        present = frozenset(listener for listener in self._listeners if listener.since is None)
        if not present:
            return
        message = Message(*_of_operation(operation))
        for listener in present:
            listener.tell(message)
        self._early[operation.id, message.metadata["status"]] = present
        if len(self._early) > _MAX_EARLY:
            self._early.popitem(last=False)

    async def _run(self, is_following: asyncio.Event) -> None:
        while True:
            try:
                async with aclosing(await self._store.history(_PREFIXES, None)) as commits:
                    self._lose()  # who came while nothing was followed
                    is_following.set()
                    async for commit in commits:
                        self._tell(commit)
            except Unavailable:
                await asyncio.sleep(_RETRY_S)
            except Exception as exc:
                log.warning("events_lost", error=str(exc))
                self._lose()
                await asyncio.sleep(_RETRY_S)

    def _tell(self, commit: Commit) -> None:
        concerned = [listener for listener in self._listeners if listener.since is None]
        if not concerned:
            return
        for change in commit.changes:
            if change.key.startswith(keys.OPERATIONS):
                self._before(change)
        for message in messages_of(commit):
            knows = self._knowing(message)
            for listener in concerned:
                if listener not in knows:
                    listener.tell(message)

    def _knowing(self, message: Message) -> frozenset[Listener]:
        if message.kind != "operation" or not self._early:
            return frozenset()
        return self._early.pop((message.metadata["id"], message.metadata["status"]), frozenset())

    def _lose(self) -> None:
        for listener in [listener for listener in self._listeners if listener.since is None]:
            listener.lose()


FEED = web.AppKey("feed", Feed)


async def _rest(commits: AsyncGenerator[Commit, None], since: Cursor) -> AsyncGenerator[Message, None]:
    async with aclosing(commits):
        async for commit in commits:
            seen = (since.part or 0) if commit.revision == since.revision else 0
            for message in messages_of(commit)[seen:]:
                yield message


def messages_of(commit: Commit) -> list[Message]:
    """Return what is told of one commit: each with the cursor to go on from, the last with all of it."""
    found = [message for change in commit.changes for message in _messages(change)]
    last = len(found)
    return [
        Message(*parts, Cursor(commit.revision, None if count == last else count))
        for count, parts in enumerate(found, 1)
    ]


def _messages(change: Change) -> Iterator[tuple[str, str, dict[str, Any], float, str]]:
    if change.value is None:
        return
    try:
        if change.key.startswith(keys.OPERATIONS):
            yield _of_operation(codec.decode(Operation, change.value))
            return
        for event in codec.decode(EventBatch, change.value).events:
            yield "lifecycle", event.project, lifecycle_json(event), event.time, ""
    except ValueError as exc:
        log.error("record_unreadable", key=change.key, error=str(exc))


def _of_operation(operation: Operation) -> tuple[str, str, dict[str, Any], float, str]:
    owner = operation.requestor.get("username", "")
    return "operation", operation.project, operation_json(operation), operation.updated_at, owner


def announce(request: web.Request, action: str, *, part: str = "", **context: Any) -> None:
    """Tell of what was done with the instance of *request*, or its *part*, but is no change of its record."""
    who = request["caller"].identity.as_dict()
    project = req.project(request)
    name = f"{req.name(request)}/{part}" if part else req.name(request)
    metadata = lifecycle_json(Event(action, "instances", project, name, who))
    if context:
        metadata["context"] = context
    request.app[FEED].tell(Message("lifecycle", project, metadata, time.time()))


def lifecycle_json(event: Event) -> dict[str, Any]:
    kind = "images/aliases" if event.subject_kind == "aliases" else event.subject_kind
    source = in_project(f"/1.0/{kind}/{event.name}", event.project) if event.name else "/1.0"
    found: dict[str, Any] = {"action": event.action, "source": source}
    if event.context:
        found["context"] = event.context
    if event.requestor:
        found["requestor"] = event.requestor
    return found
