"""Secrets by which a stranger has a private image once, or brings one once.

Each is an operation of class token, so it is there after a restart, is seen in the list of operations, and
can be withdrawn like any other. Compared in constant time; a secret of an image opens nothing else.
"""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field
from typing import Any

from core.errors import Forbidden, Invalid, NotFound, WrongState
from core.names import alias_name, is_whole_fingerprint
from core.operations.operation import TOKEN, Operation
from core.operations.runner import Runner
from core.state import keys
from core.state.store import Txn
from services.image.store import ImageStore
from services.image.usecases.images import event

GIVE, AWAIT = "image.secret", "image.await"
_WORDS = "Image download token"
_LIFE_S = 3600.0
_GRACE_S = 600.0


@dataclass(frozen=True)
class Awaited:
    """What an image becomes that a stranger will bring. aliases: name to description.

    asked_in: the project whose clients hear of the operation; empty for the one that stores it.
    """

    project: str
    fingerprint: str
    public: bool = False
    properties: dict[str, str] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    profiles: tuple[str, ...] = ()
    expires_at: float = 0.0
    auto_update: bool = False
    asked_in: str = ""


class Secrets:
    def __init__(self, store: ImageStore, runner: Runner, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._runner = runner
        self._clock = clock
        # A transfer that broke may be taken up again for a while by the secret it was begun with.
        self._grace: dict[tuple[str, str, str], float] = {}
        self._taken: set[str] = set()

    async def create(self, project: str, prefix: str, *, asked_in: str = "") -> Operation:
        """Give out a secret of an image. Raises: NotFound, Invalid."""
        image = (await self._store.image(project, prefix)).record
        there = Txn().exists(keys.image(project, image.fingerprint))
        given = {"project": project, "fingerprint": image.fingerprint, "asked_in": asked_in}
        return await self._open(GIVE, given, {}, there)

    async def expect(self, wanted: Awaited) -> Operation:
        """Give out a secret to bring an image. Raises: Invalid."""
        if not is_whole_fingerprint(wanted.fingerprint):
            words = "The full fingerprint of the image to come is needed"
            raise Invalid("BAD_FINGERPRINT", words, about="source.fingerprint")
        for name in wanted.aliases:
            alias_name(name)
        aliases = [{"name": name, "description": text} for name, text in wanted.aliases.items()]
        shown = {"aliases": aliases, "properties": wanted.properties, "public": wanted.public}
        return await self._open(AWAIT, asdict(wanted), shown, Txn())

    async def _open(self, kind: str, input: dict[str, Any], shown: dict[str, Any], txn: Txn) -> Operation:
        project, fingerprint = input["project"], input["fingerprint"]
        return await self._runner.open(
            kind,
            _WORDS,
            op_class=TOKEN,
            project=input["asked_in"] or project,
            resources={"images": (fingerprint,)},
            metadata={**shown, "secret": secrets.token_hex(32)},
            input=input,
            txn=txn.emit(event("image-secret-created", "images", project, fingerprint)),
            may_cancel=True,
        )

    def opens(self, project: str, fingerprint: str, secret: str) -> bool:
        """Say whether *secret* lets its holder have the image."""
        if self._grace.get((project, fingerprint, secret), 0.0) > self._clock():
            return True
        return self._find(GIVE, project, fingerprint, secret) is not None

    @asynccontextmanager
    async def using(self, project: str, fingerprint: str, secret: str) -> AsyncIterator[None]:
        """Use a secret up; who was cut off may come again with it for ten minutes. Raises: NotFound."""
        key = (project, fingerprint, secret)
        if not self.opens(*key):
            raise NotFound("NO_IMAGE", "Image not found")
        if operation := self._find(GIVE, *key):
            self._grace[key] = self._clock() + _GRACE_S
            await self._runner.finish(operation.id)
        try:
            yield
        finally:
            self._grace[key] = self._clock() + _GRACE_S

    async def take(self, project: str, fingerprint: str, secret: str) -> tuple[Awaited, Operation]:
        """Use up the secret of an image to come. Raises: Forbidden."""
        operation = self._find(AWAIT, project, fingerprint, secret)
        if operation is None or operation.id in self._taken:
            raise Forbidden("NOT_AUTHORIZED", "not authorized")
        self._taken.add(operation.id)
        try:
            await self._runner.finish(operation.id)
        finally:
            self._taken.discard(operation.id)
        given = operation.input
        return Awaited(**{**given, "profiles": tuple(given["profiles"])}), operation

    async def sweep(self) -> None:
        """End what nobody used in time. Repeatable."""
        now = self._clock()
        self._grace = {key: until for key, until in self._grace.items() if until > now}
        for kind in (GIVE, AWAIT):
            for operation in map(self._runner.get, self._runner.live_of(kind)):
                if self._is_old(operation):
                    with suppress(WrongState, NotFound):
                        await self._runner.cancel(operation.id)

    def _find(self, kind: str, project: str, fingerprint: str, secret: str) -> Operation | None:
        found = None
        for operation in map(self._runner.get, self._runner.live_of(kind)):
            if (operation.input["project"], operation.input["fingerprint"]) != (project, fingerprint):
                continue
            is_right = hmac.compare_digest(str(operation.metadata["secret"]).encode(), secret.encode())
            if is_right and not self._is_old(operation):
                found = operation
        return found

    def _is_old(self, operation: Operation) -> bool:
        """Whether its time is over, or it was for an image that is another one now."""
        if self._clock() > operation.created_at + _LIFE_S:
            return True
        entry = self._store.images.get(keys.image(operation.input["project"], operation.input["fingerprint"]))
        return operation.kind == GIVE and (entry is None or entry.record.uploaded_at > operation.created_at)
