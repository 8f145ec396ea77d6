"""A registry on the loopback, made of the web server of images: it keeps what it is given, right or wrong."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tests.fakes.image_server import ImageServer, serving

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
Change = Callable[[dict[str, Any]], None]


def nothing(_: dict[str, Any]) -> None:
    return None


class FakeRegistry:
    """Push images, then ask at url. The change of a manifest or config comes before its digest."""

    def __init__(self, server: ImageServer) -> None:
        self.server = server

    @property
    def url(self) -> str:
        return self.server.url

    def put(self, data: bytes, name: str = "app") -> dict[str, Any]:
        """Keep a blob; return its digest and size."""
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        self.server.files[f"/v2/{name}/blobs/{digest}"] = data
        return {"digest": digest, "size": len(data)}

    def push(
        self,
        *layers: bytes,
        name: str = "app",
        tag: str = "1",
        run: dict[str, Any] | None = None,
        manifest: Change = nothing,
        config: Change = nothing,
        compress: Callable[[bytes], bytes] = lambda data: gzip.compress(data, mtime=0),
    ) -> str:
        """Keep an image of uncompressed *layers*, lowest first; return the digest of its manifest."""
        about: dict[str, Any] = {
            "architecture": "amd64",
            "os": "linux",
            "created": "2023-11-14T22:13:20Z",
            "config": {"Cmd": ["/bin/true"]} if run is None else run,
            "rootfs": {
                "type": "layers",
                "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers],
            },
        }
        config(about)
        made: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": CONFIG, **self.put(json.dumps(about).encode(), name)},
            "layers": [{"mediaType": LAYER, **self.put(compress(layer), name)} for layer in layers],
        }
        manifest(made)
        return self.tag(made, name=name, tag=tag)

    def tag(self, manifest: Any, *, name: str = "app", tag: str = "1") -> str:
        """Keep a manifest or index under a tag and its digest, which is returned."""
        data = json.dumps(manifest).encode()
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        self.server.files[f"/v2/{name}/manifests/{tag}"] = data
        self.server.files[f"/v2/{name}/manifests/{digest}"] = data
        return digest


@contextmanager
def registry() -> Iterator[FakeRegistry]:
    with serving() as server:
        yield FakeRegistry(server)


def layer(*entries: tuple[str, bytes | str | None] | tarfile.TarInfo) -> bytes:
    """Return an archive of (path, content); a content of None is a folder, a text a symbolic link."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:", format=tarfile.PAX_FORMAT) as made:
        for entry in entries:
            if isinstance(entry, tarfile.TarInfo):
                made.addfile(entry)
                continue
            info = tarfile.TarInfo(entry[0])
            info.mode = 0o755
            if entry[1] is None:
                info.type = tarfile.DIRTYPE
            elif isinstance(entry[1], str):
                info.type, info.linkname = tarfile.SYMTYPE, entry[1]
            else:
                info.size = len(entry[1])
            made.addfile(info, io.BytesIO(entry[1] if isinstance(entry[1], bytes) else b""))
    return buffer.getvalue()


def special(path: str, type: bytes, *, link: str = "", **more: Any) -> tarfile.TarInfo:
    """Return an entry without content: a hard link, a device, a pipe."""
    info = tarfile.TarInfo(path)
    info.type, info.linkname = type, link
    for name, value in more.items():
        setattr(info, name, value)
    return info
