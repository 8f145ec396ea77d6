"""The REST API over the local unix socket: requests, answers and operations.

Asynchronous answers are waited for, with a sign of life on a terminal. Standard library only.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO, NamedTuple
from urllib.parse import quote, urlencode

from cli.failure import CliError, Refused, Unreachable

_BLOCK = 1 << 20
_PATIENCE_S, _RETRY_S = 30.0, 0.2
DEFAULT_DIR = "/var/lib/podium"


def state_dir(env: Mapping[str, str] = os.environ) -> str:
    return env.get("PODIUM_DIR") or env.get("LXD_DIR") or DEFAULT_DIR


class Upload(NamedTuple):
    """A body that is sent as it is. length None: chunked."""

    chunks: BinaryIO | Iterator[bytes]
    length: int | None


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("podium", blocksize=_BLOCK)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._path)


def url(*parts: str) -> str:
    """Return /1.0/… with every part quoted. Raises: CliError for an empty name, which would mean all."""
    if not all(parts):
        raise CliError(
            "a name is empty", "the server would take it for all of them", "podium list, for the names"
        )
    return "/1.0" + "".join(f"/{quote(part, safe='', errors='surrogateescape')}" for part in parts)


class Server:
    """One server, one project. Every call uses a connection of its own, so threads may share it."""

    def __init__(self, *, project: str = "", quiet: bool = True, debug: bool = False) -> None:
        self.socket_path = os.path.join(state_dir(), "unix.socket")
        self.project = project
        self._quiet = quiet
        self._debug = debug

    def get(self, path: str, /, **query: str) -> Any:
        with self._open("GET", path, None, {}, query) as reply:
            return _metadata(reply)["metadata"]

    def get_tagged(self, path: str, /, **query: str) -> tuple[Any, str]:
        """Return the object and its ETag."""
        with self._open("GET", path, None, {}, query) as reply:
            return _metadata(reply)["metadata"], reply.headers.get("ETag", "")

    def find(self, path: str) -> Any:
        """Return the object, or None where there is none."""
        try:
            return self.get(path)
        except Refused as exc:
            if exc.status == 404 and "roject not found" not in exc.why:
                return None
            raise

    def send(
        self, method: str, path: str, body: Any = None, /, *, etag: str = "", doing: str = "", **query: str
    ) -> Any:
        """Return the metadata of the answer, or the finished operation. Raises: Refused."""
        headers = {"If-Match": etag} if etag else {}
        with self._open(method, path, body, headers, query) as answer:
            reply = _metadata(answer)
        if reply["type"] != "async":
            return reply["metadata"]
        return self.wait(reply["metadata"], doing=doing)

    def begin(
        self,
        method: str,
        path: str,
        body: Any = None,
        /,
        *,
        headers: dict[str, str] | None = None,
        **query: str,
    ) -> Any:
        """Return the whole answer at once; an operation may still be under way."""
        with self._open(method, path, body, headers or {}, query) as reply:
            return _metadata(reply)

    def wait(self, operation: Mapping[str, Any], *, doing: str = "") -> Any:
        """Return the operation once it succeeded. Raises: Refused with its reason."""
        from cli.progress import alive

        path = url("operations", operation["id"])
        with alive(doing, lambda: self.get(path), quiet=self._quiet):
            done = self.final(operation)
        if done["status_code"] != 200:
            raise Refused(400, done["err"] or f"the operation ended as {done['status']}")
        return done

    def final(self, operation: Mapping[str, Any]) -> Any:
        """Return the operation once it ended, well or not.

        Operations outlive the gateway: while it restarts, or etcd is away, waiting goes on.
        """
        path, end = url("operations", operation["id"], "wait"), None
        while True:
            try:
                return self.get(path, timeout="-1")
            except (Unreachable, Refused) as exc:
                end = end or time.monotonic() + _PATIENCE_S
                if time.monotonic() > end or (isinstance(exc, Refused) and exc.status != 503):
                    raise
            time.sleep(_RETRY_S)

    @contextmanager
    def stream(
        self,
        method: str,
        path: str,
        body: Any = None,
        /,
        *,
        headers: dict[str, str] | None = None,
        **query: str,
    ) -> Iterator[http.client.HTTPResponse]:
        """Yield the answer with its body unread. Raises: Refused, Unreachable."""
        with self._open(method, path, body, headers or {}, query) as reply:
            yield reply

    @contextmanager
    def _open(
        self, method: str, path: str, body: Any, headers: dict[str, str], query: Mapping[str, str]
    ) -> Iterator[http.client.HTTPResponse]:
        connection = _Connection(self.socket_path)
        try:
            with self._reaching():
                self._request(connection, method, self._target(path, query), body, headers)
                reply = connection.getresponse()
            _raise_for(reply)
            yield reply
        finally:
            connection.close()

    def connect(self, path: str, /, **query: str) -> tuple[socket.socket, str]:
        """Return a fresh socket and the target to ask for, for a websocket."""
        connection = _Connection(self.socket_path)
        with self._reaching():
            connection.connect()
        return connection.sock, self._target(path, query)

    def _target(self, path: str, query: Mapping[str, str]) -> str:
        wanted = {key.replace("_", "-"): value for key, value in query.items()}
        if self.project and "all-projects" not in wanted:
            wanted.setdefault("project", self.project)
        joiner = "&" if "?" in path else "?"
        return path + (joiner + urlencode(wanted, errors="surrogateescape") if wanted else "")

    def _request(
        self, connection: _Connection, method: str, target: str, body: Any, headers: dict[str, str]
    ) -> None:
        if self._debug:
            print(f"{method} {target}", file=sys.stderr)
        if isinstance(body, Upload):
            if body.length is not None:
                headers = {**headers, "Content-Length": str(body.length)}
            # A server that refuses early stops reading; what it says is worth more than the broken pipe.
            with suppress(BrokenPipeError, ConnectionResetError):
                connection.request(method, target, body.chunks, headers, encode_chunked=False)
            return
        data = None if body is None else json.dumps(body).encode()
        connection.request(method, target, data, {"Content-Type": "application/json", **headers})

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, ConnectionRefusedError) as exc:
            why = "there is no socket" if isinstance(exc, FileNotFoundError) else "nobody listens"
            raise Unreachable("Podium does not answer", f"{why} at {self.socket_path}", "podium up") from exc
        except PermissionError as exc:
            why = f"{self.socket_path} is for root and the group podium"
            raise Unreachable(
                "Podium may not be used by you", why, "run it as root, or join the group"
            ) from exc
        except (ConnectionError, http.client.HTTPException) as exc:
            why = f"the server at {self.socket_path} hung up ({type(exc).__name__})"
            raise Unreachable("the answer was lost", why, "podium list, to see what was done") from exc


def _metadata(reply: http.client.HTTPResponse) -> Any:
    return json.loads(reply.read())


def _raise_for(reply: http.client.HTTPResponse) -> None:
    if reply.status < 400:
        return
    text = reply.read()
    try:
        raise Refused(reply.status, str(json.loads(text)["error"]))
    except (ValueError, KeyError, TypeError):
        raise Refused(reply.status, f"{reply.reason} (HTTP {reply.status})") from None
