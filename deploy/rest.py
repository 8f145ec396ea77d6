"""The smallest REST client: standard library only, over the unix socket."""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path
from typing import Any

_PATIENCE_S = 24 * 3600.0  # for a shutdown: each instance has a bound of its own


class RestError(Exception):
    """An error reply; code is the HTTP status."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("podium", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class Rest:
    """Calls one server; asynchronous answers are waited for."""

    def __init__(self, path: Path, *, timeout: float = 600.0) -> None:
        self._path = path
        self._timeout = timeout

    def call(self, method: str, url: str, body: Any = None, *, headers: dict[str, str] | None = None) -> Any:
        """Return the metadata of the answer, or of the finished operation. Raises: RestError, OSError."""
        reply = self._send(method, url, body, headers or {})
        if reply["type"] != "async":
            return reply["metadata"]
        done = self._send("GET", f"{reply['operation']}/wait?timeout=-1", None, {})["metadata"]
        if done["status_code"] != 200:
            raise RestError(400, done["err"])
        return done

    def _send(self, method: str, url: str, body: Any, headers: dict[str, str]) -> Any:
        connection = _Connection(self._path, self._timeout)
        data = body if body is None or hasattr(body, "read") else json.dumps(body).encode()
        try:
            connection.request(method, url, data, headers)
            reply = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        if reply.get("type") == "error":
            raise RestError(reply["error_code"], reply["error"])
        return reply


def stop_instances(path: Path) -> list[str]:
    """Stop all instances as before the host goes down; return why not, for those that resist.

    Raises: RestError, OSError.
    """
    answer = Rest(path, timeout=_PATIENCE_S).call("PUT", "/internal/shutdown")
    return [str(line) for line in answer["failed"]]
