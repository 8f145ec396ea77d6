"""A server of images and its mirrors, as one: what the first cannot give is asked of the next. Blocking."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Protocol, TypeVar

from core.errors import Forbidden, NotFound, PodiumError, Unavailable
from services.image.sources.web import UNREACHABLE, Web

T = TypeVar("T")
# What another server may do better: this one is away, broken, behind, or not the one it should be.
_NEXT = (Unavailable, NotFound, Forbidden)


class Told(Protocol):
    """Hears whether a server was reached; is_wrong: that it sent other bytes than it should."""

    def __call__(self, server: str, *, worked: bool, is_wrong: bool = False) -> None: ...


class Servers:
    """webs: how to ask each, by its address and in order. Who failed is not asked again."""

    def __init__(self, webs: Mapping[str, Web], tell: Told) -> None:
        self._webs = dict(webs)
        self._tell = tell
        self._has_mirrors = len(webs) > 1
        self._gave: set[str] = set()

    def first(self, ask: Callable[[Web, str], T]) -> T:
        """Return what the first server answers that can. Raises: what the last of them did."""
        for base in list(self._webs):
            try:
                found = ask(self._webs[base], base)
            except _NEXT as exc:
                self._drop(base, exc)
                continue
            self._tell(base, worked=True)
            return found
        raise AssertionError("there is always a server")  # the last failure was raised

    def stream(self, path: str) -> Iterator[bytes]:
        """Yield a file that is the same everywhere; where one server breaks off the next goes on."""
        got = 0
        for base in list(self._webs):
            try:
                for chunk in self._webs[base].stream(f"{base}/{path}", got):
                    self._gave.add(base)
                    got += len(chunk)
                    yield chunk
                return
            except _NEXT as exc:
                self._drop(base, exc)

    def open(self, path: str) -> tuple[Mapping[str, str], Iterator[bytes]]:
        """Return headers and body of one answer; it is taken up where it breaks off, if the server can."""
        return self.first(lambda web, base: web.open(f"{base}/{path}"))

    def are_wrong(self) -> None:
        """Say of all that gave something that it was not what it should be, if others may have it."""
        for base in self._gave if self._has_mirrors else ():
            self._tell(base, worked=False, is_wrong=True)

    def _drop(self, base: str, exc: PodiumError) -> None:
        """Raises: *exc* when no other server is left."""
        if exc.reason == UNREACHABLE:
            self._tell(base, worked=False)
        if len(self._webs) == 1:
            raise exc
        del self._webs[base]
