"""`image import-rootfs`: a plain root file system, a folder or a tarball, as an image."""

from __future__ import annotations

import io
import json
import os
import platform
import secrets
import subprocess
import tarfile
import time
from collections.abc import Iterator

from cli.aliases import point
from cli.call import Call
from cli.failure import CliError
from cli.progress import Meter
from cli.server import Upload, url
from cli.transfers import part_head

_CHUNK = 1 << 20
# All that a root has, as numbers: what is mounted below it is not part of it.
_TAR = ("tar", "--numeric-owner", "--one-file-system", "--xattrs", "--xattrs-include=*", "--acls", "--sparse")


def import_rootfs(call: Call) -> None:
    path, properties = call.words[0], call.pairs(call.words[1:])
    if not os.path.exists(path):
        raise CliError(f"{path} cannot be imported", "it is not there", "name a folder or a tarball")
    if os.path.isdir(path):
        _check_folder(path)
    architecture = call.text("architecture") or platform.machine()
    metadata = _metadata(architecture, {"description": os.path.basename(os.path.abspath(path)), **properties})
    boundary = secrets.token_hex(16)
    headers = {
        "X-LXD-public": "1" if call.on("public") else "0",
        "Content-Type": f"multipart/form-data; boundary={boundary}",
    }
    total = None if os.path.isdir(path) else os.path.getsize(path)
    with Meter("Sending the root file system", total, quiet=call.is_quiet) as meter:
        body = Upload(_form(boundary, metadata, path, meter), None)
        reply = call.server.begin("POST", url("images"), body, headers=headers)
    done = call.server.wait(reply["metadata"], doing="Importing the image")
    fingerprint = str(done["metadata"]["fingerprint"])
    for alias in call.texts("alias"):
        point(call.server, alias, fingerprint)
    print(f"Image imported with fingerprint: {fingerprint}")


def _check_folder(path: str) -> None:
    """Raises: CliError for a folder that holds no root."""
    if not any(os.path.lexists(os.path.join(path, name)) for name in ("bin", "usr", "sbin")):
        why = "there is no bin, usr or sbin in it"
        raise CliError(f"{path} is no root file system", why, "name the folder that would be /")


def _metadata(architecture: str, properties: dict[str, str]) -> bytes:
    """Return the archive with metadata.yaml, of which JSON is a part."""
    about = {"architecture": architecture, "creation_date": int(time.time()), "properties": properties}
    text = json.dumps(about, ensure_ascii=False).encode(errors="surrogateescape")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as made:
        info = tarfile.TarInfo("metadata.yaml")
        info.size = len(text)
        made.addfile(info, io.BytesIO(text))
    return buffer.getvalue()


def _form(boundary: str, metadata: bytes, path: str, meter: Meter) -> Iterator[bytes]:
    yield part_head(boundary, "metadata", "metadata.tar.gz") + metadata + b"\r\n"
    yield part_head(boundary, "rootfs", f"{os.path.basename(os.path.abspath(path))}.root")
    for data in _packed(path) if os.path.isdir(path) else _read(path):
        meter.add(len(data))
        yield data
    yield f"\r\n--{boundary}--\r\n".encode()


def _read(path: str) -> Iterator[bytes]:
    with open(path, "rb") as file:
        while data := file.read(_CHUNK):
            yield data


def _packed(path: str) -> Iterator[bytes]:
    """Yield a folder as a compressed archive. Raises: CliError when not all of it can be read."""
    with (
        subprocess.Popen(
            [*_TAR, "-C", path, "-c", "."], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as tar,
        subprocess.Popen(["zstd", "-q", "-1", "-c"], stdin=tar.stdout, stdout=subprocess.PIPE) as packer,
    ):
        assert tar.stdout and tar.stderr and packer.stdout
        tar.stdout.close()
        try:
            while data := packer.stdout.read(_CHUNK):
                yield data
        finally:
            said = tar.stderr.read(1 << 16).decode(errors="replace").strip().splitlines()
        if tar.wait() or packer.wait():
            why = said[0] if said else "tar failed"
            raise CliError(f"{path} was not imported", why, "only root can read all of a root file system")
