"""A server that images are pushed to, on the loopback, over TLS, that can be told to misbehave."""

from __future__ import annotations

import json
import ssl
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class ImageTarget:
    """mood: how an upload is answered. came: headers and bodies of the uploads."""

    def __init__(self, certificate: str) -> None:
        self.certificate = certificate
        self.mood = "good"
        self.redirect_to = ""
        self.came: list[tuple[dict[str, str], bytes]] = []
        self.paths: list[str] = []
        self.port = 0

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"


_ID = str(uuid.uuid4())
_DONE: dict[str, Any] = {
    "good": {"status_code": 200},
    "fails": {"status_code": 400, "err": "no room\x1b[2J left"},
    "odd": {"status_code": "good"},
}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    target: ImageTarget

    def do_GET(self) -> None:
        self.target.paths.append(self.path)
        if self.path != "/1.0":
            self._send(200, {"metadata": _DONE.get(self.target.mood, _DONE["good"])})
        elif self.target.redirect_to:
            self._send(302, {}, {"Location": self.target.redirect_to})
        else:
            self._send(200, {"metadata": {"api_version": "1.0"}})

    def do_POST(self) -> None:
        self.target.paths.append(self.path)
        mood = self.target.mood
        if mood in ("refuses", "dies"):
            self.close_connection = True
            if mood == "refuses":
                self._send(403, {"error": "not authorized"})
                self.rfile.read(int(self.headers["Content-Length"]))
            return
        if mood == "sleeps":
            time.sleep(60)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.target.came.append((dict(self.headers), body))
        if mood == "noise":
            self._send(200, b"\xff" * 1000)
            return
        id = "../../internal" if mood == "elsewhere" else _ID
        self._send(202, {"type": "async", "metadata": {"id": id, "metadata": {"secret": "s"}}})

    def _send(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: Any) -> None:
        pass


@contextmanager
def target(certificate: Path, key: Path) -> Iterator[ImageTarget]:
    """Serve for as long as the block runs."""
    found = ImageTarget(certificate.read_text())
    handler = type("Handler", (_Handler,), {"target": found})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    found.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
