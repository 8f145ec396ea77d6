"""A web server of images on the loopback, that can be told to misbehave."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

METADATA = b"architecture: x86_64\ncreation_date: 1700000000\nproperties: {os: Mini}\n"


class ImageServer:
    """files: path to bytes. asked counts GETs; breaks_at ends a first answer after so many bytes."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.headers: dict[str, dict[str, str]] = {}
        self.redirects: dict[str, str] = {}
        self.asked: list[str] = []
        self.breaks_at: dict[str, int] = {}
        self.delays_s: dict[str, float] = {}
        """By the beginning of a path: how long its answer takes."""
        self.most_at_once = self.now = 0
        """How many such answers were on their way at the same time."""
        self.guard: Callable[[str, str], tuple[int, dict[str, str]] | None] = lambda path, shown: None
        """Answers a request (path, header Authorization) in place of the file, where it returns something."""
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def wait(self, path: str) -> None:
        delay_s = next((s for start, s in self.delays_s.items() if path.startswith(start)), 0.0)
        if delay_s:
            self.now += 1
            self.most_at_once = max(self.now, self.most_at_once)
            time.sleep(delay_s)
            self.now -= 1

    def instead(self, path: str, shown: str) -> tuple[int, dict[str, str]] | None:
        """Return status and headers that a request gets in place of a file."""
        if refused := self.guard(path, shown):
            return refused
        path = path.split("?")[0]
        if target := self.redirects.get(path):
            return 302, {"Location": target}
        return None if path in self.files else (404, {})

    def offer(self, alias: str = "mini", *, version: str = "20260101_0100", content: bytes = b"x") -> str:
        """Offer a split image by simplestreams; return its fingerprint."""
        metadata = tar({"metadata.yaml": METADATA})
        root = tar({"etc/os-release": content}, compression="xz")
        fingerprint = hashlib.sha256(metadata + root).hexdigest()
        items = {
            "a": {**_item("lxd.tar.xz", f"m{version}", metadata), "combined_rootxz_sha256": fingerprint},
            "b": _item("root.tar.xz", f"r{version}", root),
        }
        product = {"aliases": f"{alias},other", "arch": "amd64", "os": "Mini", "release": "1"}
        old = json.loads(self.files.get("/streams/v1/images.json", b'{"products": {}}'))
        kept = old["products"].get("mini", {}).get("versions", {})
        product["versions"] = {**kept, version: {"items": items}}
        self.files |= {
            f"/m{version}": metadata,
            f"/r{version}": root,
            "/streams/v1/images.json": json.dumps({"products": {"mini": product}}).encode(),
            "/streams/v1/index.json": json.dumps(
                {
                    "index": {
                        "images": {
                            "datatype": "image-downloads",
                            "path": "streams/v1/images.json",
                            "products": ["mini"],
                        }
                    }
                }
            ).encode(),
        }
        return fingerprint

    def offer_unified(self, alias: str, content: bytes) -> None:
        """Offer an image of one file besides what offer() offers."""
        self.files[f"/{alias}"] = content
        self._add(alias, {"u": _item("lxd_combined.tar.gz", alias, content)})

    def offer_split(self, alias: str, metadata: bytes, root: bytes) -> None:
        """Offer an image of two files besides what offer() offers."""
        self.files |= {f"/m{alias}": metadata, f"/r{alias}": root}
        fingerprint = hashlib.sha256(metadata + root).hexdigest()
        about = {**_item("lxd.tar.xz", f"m{alias}", metadata), "combined_rootxz_sha256": fingerprint}
        self._add(alias, {"a": about, "b": _item("root.tar.xz", f"r{alias}", root)})

    def _add(self, alias: str, items: dict[str, Any]) -> None:
        products = json.loads(self.files["/streams/v1/images.json"])
        product = {
            "aliases": alias,
            "arch": "amd64",
            "os": "Mini",
            "versions": {"20260101": {"items": items}},
        }
        products["products"][alias] = product
        self.files["/streams/v1/images.json"] = json.dumps(products).encode()


def _item(kind: str, path: str, content: bytes) -> dict[str, Any]:
    return {
        "ftype": kind,
        "path": path,
        "size": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }


def tar(files: dict[str, bytes], *, compression: str = "gz") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=f"w:{compression}") as made:  # type: ignore[call-overload]
        for name, content in files.items():
            for depth in range(1, name.count("/") + 1):
                folder = tarfile.TarInfo("/".join(name.split("/")[:depth]))
                folder.type, folder.mode = tarfile.DIRTYPE, 0o755
                made.addfile(folder)
            about = tarfile.TarInfo(name)
            about.size = len(content)
            made.addfile(about, io.BytesIO(content))
    return buffer.getvalue()


@contextmanager
def serving() -> Iterator[ImageServer]:
    """Serve for as long as the block runs."""
    images = ImageServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def do_GET(self) -> None:
            images.asked.append(self.path)
            images.wait(self.path)
            self._answer(with_body=True)

        def _answer(self, *, with_body: bool) -> None:
            path = self.path.split("?")[0]
            content = images.files.get(path, b"")
            if instead := images.instead(self.path, self.headers.get("Authorization", "")):
                self._send(*instead, b"", 0)
                return
            start = int(self.headers["Range"][6:-1]) if "Range" in self.headers else 0
            body = content[start:]
            said = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if start else {}
            headers, status = {**images.headers.get(path, {}), **said}, 206 if start else 200
            if (at := images.breaks_at.pop(path, 0)) and with_body:
                self._send(status, headers, body[:at], len(body))
                self.close_connection = True
                return
            self._send(status, headers, body if with_body else b"", len(body))

        def _send(self, status: int, headers: dict[str, str], body: bytes, length: int) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(length), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    images.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield images
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
