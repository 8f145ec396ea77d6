"""`image import` and `image export`: bytes in and out, with a bar."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator
from http.client import HTTPResponse
from typing import Any, BinaryIO
from urllib.parse import urlencode

from cli.aliases import point
from cli.call import Call
from cli.failure import CliError
from cli.images import fingerprint_of
from cli.progress import Meter, Metered
from cli.server import Upload, url

_CHUNK = 1 << 20


def import_image(call: Call) -> None:
    if call.words[0].startswith(("http://", "https://")):
        fingerprint = _fetch(call, call.words[0], call.pairs(call.words[1:]))
    else:
        fingerprint = _import_files(call)
    for alias in call.texts("alias"):
        point(call.server, alias, fingerprint)
    print(f"Image imported with fingerprint: {fingerprint}")


def _fetch(call: Call, address: str, properties: dict[str, str]) -> str:
    """Let the server fetch an image from a web server."""
    body = {"source": {"type": "url", "mode": "pull", "protocol": "direct", "url": address}}
    extra = {"public": call.on("public"), "properties": properties}
    done = call.server.send("POST", url("images"), body | extra, doing="Fetching the image")
    return str(done["metadata"]["fingerprint"])


def _import_files(call: Call) -> str:
    files = [word for word in call.words if "=" not in word or os.path.exists(word)]
    properties = call.pairs([word for word in call.words if word not in files])
    if len(files) > 2:
        raise call.misuse(
            "there are too many files", "an image is one file, or metadata and a root file system"
        )
    for path in files:
        _check_file(path)
    return upload(call, files, properties)


def _check_file(path: str) -> None:
    if not os.path.isfile(path):
        why = (
            "podium imports files; a folder must be packed first"
            if os.path.isdir(path)
            else "it is not there"
        )
        raise CliError(
            f"{path} cannot be imported", why, "tar -C FOLDER -czf image.tar.gz metadata.yaml rootfs"
        )


def upload(call: Call, files: list[str], properties: dict[str, str]) -> str:
    """Send an image in one part or two and return its fingerprint."""
    headers = {
        "X-LXD-filename": os.path.basename(files[0]),
        "X-LXD-public": "1" if call.on("public") else "0",
    }
    if properties:
        headers["X-LXD-properties"] = urlencode(properties)
    total = sum(os.path.getsize(path) for path in files)
    with Meter("Sending the image", total, quiet=call.is_quiet) as meter:
        body, kind = _unified(files[0], meter) if len(files) == 1 else _split(files, meter)
        reply = call.server.begin("POST", url("images"), body, headers={**headers, "Content-Type": kind})
    done = call.server.wait(reply["metadata"], doing="Importing the image")
    fingerprint: str = done["metadata"]["fingerprint"]
    return fingerprint


def _unified(path: str, meter: Meter) -> tuple[Upload, str]:
    file: Any = Metered(open(path, "rb"), meter)  # noqa: SIM115 (closed with the process; http.client reads it)
    return Upload(file, os.path.getsize(path)), "application/octet-stream"


def _split(files: list[str], meter: Meter) -> tuple[Upload, str]:
    boundary = secrets.token_hex(16)
    heads = [
        part_head(boundary, name, path) for name, path in zip(("metadata", "rootfs"), files, strict=True)
    ]
    tail = f"--{boundary}--\r\n".encode()
    length = sum(
        len(head) + os.path.getsize(path) + 2 for head, path in zip(heads, files, strict=True)
    ) + len(tail)

    def chunks() -> Iterator[bytes]:
        for head, path in zip(heads, files, strict=True):
            yield head
            with open(path, "rb") as file:
                while data := file.read(_CHUNK):
                    meter.add(len(data))
                    yield data
            yield b"\r\n"
        yield tail

    return Upload(chunks(), length), f"multipart/form-data; boundary={boundary}"


def part_head(boundary: str, name: str, path: str) -> bytes:
    leaf = re.sub(r'["\r\n\\]', "_", os.path.basename(path))
    return (
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="{leaf}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    ).encode()


def export_image(call: Call) -> None:
    fingerprint = fingerprint_of(call.server, call.words[0])
    target = call.word(1, ".")
    with call.server.stream("GET", url("images", fingerprint, "export")) as reply:
        kind = reply.headers.get_content_type()
        total = int(reply.headers.get("Content-Length") or 0) or None
        with Meter("Exporting the image", total, quiet=call.is_quiet) as meter:
            if kind == "multipart/form-data":
                _save_parts(reply, target, meter)
            else:
                _save_whole(reply, target, fingerprint, meter)
    call.say("Image exported successfully!")


def _save_whole(reply: HTTPResponse, target: str, fingerprint: str, meter: Meter) -> None:
    leaf = os.path.basename(reply.headers.get_filename() or fingerprint)
    path = os.path.join(target, leaf) if os.path.isdir(target) else target + _suffix(leaf, fingerprint)
    with _created(path) as file:
        while data := reply.read(_CHUNK):
            file.write(data)
            meter.add(len(data))


def _suffix(leaf: str, fingerprint: str) -> str:
    """Return ".tar.gz" of "<fingerprint>.tar.gz", which is added to a name that was asked for."""
    found = re.search(r"(\.tar)?\.[A-Za-z0-9]+$", leaf.removeprefix(fingerprint))
    return found[0] if found else ""


def _save_parts(reply: HTTPResponse, target: str, meter: Meter) -> None:
    """Write the two files of a split image: TARGET and TARGET.root, or their own names in a folder."""
    parts = Multipart(reply, str(reply.headers.get_param("boundary")))
    while (names := parts.next_part()) is not None:
        name, leaf = names
        path = (
            os.path.join(target, os.path.basename(leaf))
            if os.path.isdir(target)
            else _part_path(target, name, leaf)
        )
        with _created(path) as file:
            for data in parts.body():
                file.write(data)
                meter.add(len(data))


def _part_path(target: str, name: str, leaf: str) -> str:
    suffix = re.search(r"(\.tar)?\.[A-Za-z0-9]+$", leaf)
    ending = suffix[0] if suffix else ""
    return f"{target}.root{ending}" if name.startswith("rootfs") else f"{target}{ending}"


def _created(path: str) -> BinaryIO:
    try:
        return open(path, "wb")
    except OSError as exc:
        raise CliError(f"{path} cannot be written", exc.strerror or "?", "name another target") from exc


class Multipart:
    """Reads multipart/form-data as it comes, without holding a part in memory."""

    def __init__(self, source: Any, boundary: str) -> None:
        self._source = source
        self._mark = f"\r\n--{boundary}".encode()
        self._buffer = b"\r\n"
        self._skip_to_part()

    def _skip_to_part(self) -> None:
        for _ in self.body():
            pass

    def next_part(self) -> tuple[str, str] | None:
        """Return the part's name and file name; None after the last. Raises: CliError."""
        while b"\r\n\r\n" not in self._buffer and not self._buffer.startswith(b"--"):
            self._fill()
        if self._buffer.startswith(b"--"):
            return None
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        text = head.decode(errors="replace")
        names = [re.search(rf'\b{key}="?([^";\r\n]*)', text) for key in ("name", "filename")]
        return (names[0][1] if names[0] else "", names[1][1] if names[1] else "image")

    def body(self) -> Iterator[bytes]:
        """Yield the bytes up to the next boundary."""
        while (at := self._buffer.find(self._mark)) < 0:
            sure = len(self._buffer) - len(self._mark)
            if sure > 0:
                yield self._buffer[:sure]
                self._buffer = self._buffer[sure:]
            self._fill()
        if at:
            yield self._buffer[:at]
        self._buffer = self._buffer[at + len(self._mark) :]

    def _fill(self) -> None:
        data = self._source.read(_CHUNK)
        if not data:
            raise CliError(
                "the export is not complete", "the server ended it early", "the same command again"
            )
        self._buffer += data
