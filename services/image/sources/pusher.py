"""`python -m services.image.sources.pusher`: send one image to another server, in a process of its own.

What the other server answers is untrusted, so it is read here, within bounds. A JSON request comes on
standard input; frames (see children.py) go to standard output: "p", how many bytes are on their way.
"""

from __future__ import annotations

import http.client
import json
import os
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO
from urllib.parse import quote, urlencode

from core.errors import Invalid, Unavailable, WrongState
from services.image.sources.framing import frame, serve
from services.image.sources.web import Web, checked_url, unreachable

_CHUNK = 1 << 20
_ANSWER_MOST = 1 << 20
_ASK_EVERY_S = 30
_LONGEST_S = 3600.0
_FAILED_FROM = 400
_SUCCESS = 200


def main() -> int:
    return serve(_push)


def _push(asked: Mapping[str, Any], out: BinaryIO) -> None:
    other = _Other(asked)
    about = other.ask("GET", "/1.0")
    if not isinstance(about.get("metadata"), dict):
        raise Invalid("BAD_SERVER", f"{other.url} does not answer as a server of this API does")
    query = f"?{urlencode({'project': asked['project']})}" if asked["project"] else ""
    answer = other.upload(f"/1.0/images{query}", asked, out)
    operation = answer.get("metadata") if answer.get("type") == "async" else None
    try:
        id = str(uuid.UUID(operation["id"]))  # type: ignore[index]
        secret = str((operation["metadata"] or {}).get("secret", ""))  # type: ignore[index]
    except (KeyError, TypeError, ValueError, AttributeError):
        raise Invalid(
            "BAD_SERVER", f"{other.url} took the image and did not say in which operation"
        ) from None
    _wait(other, f"/1.0/operations/{id}/wait?secret={quote(secret)}&timeout={_ASK_EVERY_S}", out)


def _wait(other: _Other, path: str, out: BinaryIO) -> None:
    """Return when the other server has made an image of it. Raises: WrongState with what it said."""
    until = time.monotonic() + _LONGEST_S
    while time.monotonic() < until:
        found = other.ask("GET", path).get("metadata")
        code = found.get("status_code") if isinstance(found, dict) else None
        if not isinstance(code, int):
            raise Invalid("BAD_SERVER", f"{other.url} does not say how the upload went")
        if code == _SUCCESS:
            return
        if code > _SUCCESS:
            raise WrongState("REFUSED_THERE", f"{other.url} said: {_shown(found.get('err'))}")  # type: ignore[union-attr]
        frame(out, b"p", b"")
        time.sleep(0.2)
    raise Unavailable("NOT_DONE", f"{other.url} did not finish within {_LONGEST_S:.0f} s")


class _Other:
    """The other server. Redirects are not followed: what was to be sent is for the one that was named."""

    def __init__(self, asked: Mapping[str, Any]) -> None:
        self.url = asked["target"].rstrip("/")
        self._web = Web(asked["certificate"], asked["may_reach_inside"], {})
        if checked_url(self.url).scheme != "https":
            raise Invalid("BAD_TARGET", f"{self.url[:200]} is no https address", about="target")

    def ask(self, method: str, path: str) -> dict[str, Any]:
        connection = self._connection()
        try:
            connection.request(method, path, headers={"User-Agent": "Podium"})
            return self._answer(connection)
        except (OSError, http.client.HTTPException) as exc:
            raise unreachable(self.url, exc) from exc
        finally:
            connection.close()

    def upload(self, path: str, asked: Mapping[str, Any], out: BinaryIO) -> dict[str, Any]:
        headers, pieces, size = _body(asked)
        connection = self._connection()
        try:
            connection.putrequest("POST", path)
            for name, value in {"User-Agent": "Podium", **headers, "Content-Length": str(size)}.items():
                connection.putheader(name, value.encode())
            connection.endheaders()
            self._send(connection, pieces, out)
            return self._answer(connection)
        except (OSError, http.client.HTTPException) as exc:
            raise unreachable(self.url, exc) from exc
        finally:
            connection.close()

    def _send(self, connection: http.client.HTTPConnection, pieces: Iterator[bytes], out: BinaryIO) -> None:
        try:
            for piece in pieces:
                connection.send(piece)
                frame(out, b"p", str(len(piece)).encode())
        except OSError:
            pass  # it may have refused before the end, and its answer says why

    def _connection(self) -> http.client.HTTPConnection:
        return self._web.connect(checked_url(self.url))

    def _answer(self, connection: http.client.HTTPConnection) -> dict[str, Any]:
        response = connection.getresponse()
        body = response.read(_ANSWER_MOST + 1)
        try:
            found = json.loads(body) if len(body) <= _ANSWER_MOST else None
        except (ValueError, RecursionError):
            found = None
        if response.status >= _FAILED_FROM:
            why = _shown(found.get("error") if isinstance(found, dict) else None)
            raise WrongState("REFUSED_THERE", f"{self.url} said ({response.status}): {why}")
        if not isinstance(found, dict):
            raise Invalid("BAD_SERVER", f"{self.url} does not answer as a server of this API does")
        return found


def _body(asked: Mapping[str, Any]) -> tuple[dict[str, str], Iterator[bytes], int]:
    """Return headers, body and its length: the file, or a form of both."""
    files: list[dict[str, Any]] = asked["files"]
    headers = {
        "X-LXD-fingerprint": asked["fingerprint"],
        "X-LXD-secret": asked["secret"],
        "X-LXD-filename": files[-1]["name"],
    }
    if asked["profiles"]:
        headers["X-LXD-profiles"] = urlencode([("profile", name) for name in asked["profiles"]])
    if len(files) == 1:
        headers["Content-Type"] = "application/octet-stream"
        return headers, _read(files[0]["path"]), files[0]["size"]
    boundary = uuid.uuid4().hex
    headers["Content-Type"] = f"multipart/form-data; boundary={boundary}"
    heads, lead = [], ""
    for file in files:
        head = f'{lead}--{boundary}\r\nContent-Disposition: form-data; name="{file["part"]}"; '
        head += f'filename="{file["name"]}"\r\nContent-Type: application/octet-stream\r\n\r\n'
        heads.append(head.encode())
        lead = "\r\n"
    end = f"\r\n--{boundary}--\r\n".encode()
    size = sum(map(len, heads)) + sum(file["size"] for file in files) + len(end)

    def pieces() -> Iterator[bytes]:
        for head, file in zip(heads, files, strict=True):
            yield head
            yield from _read(file["path"])
        yield end

    return headers, pieces(), size


def _read(path: str) -> Iterator[bytes]:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    with open(descriptor, "rb", buffering=0) as file:
        while chunk := file.read(_CHUNK):
            yield chunk


def _shown(said: Any) -> str:
    """Return what a stranger said as part of a sentence of ours."""
    text = said if isinstance(said, str) and said else "nothing that can be understood"
    return "".join(c if c.isprintable() else " " for c in text)[:300]


if __name__ == "__main__":
    sys.exit(main())
