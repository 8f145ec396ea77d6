"""The zoo of archives once more, through every other source: each is refused, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from core.errors import Invalid
from core.operations.operation import FAILED, Operation
from services.image.ports import RemoteSource
from services.image.usecases.downloads import Wanted
from tests.fakes.image_server import METADATA, ImageServer, serving, tar
from tests.integration.image.harness import YAML, Service, packed, tarball, unified
from tests.integration.image.test_hostile_archives import ZOO

# One for each place where something is looked at; all of them are uploaded elsewhere.
CHOSEN = (
    "rootfs is a link",
    "metadata.yaml is a link",
    "templates is a link",
    "metadata.yaml is a hard link",
    "no rootfs",
    "a name that leads out",
    "an absolute name",
    "a file below a link",
    "a name with NUL",
    "a size of 8 EiB",
    "no archive",
    "10 GiB of zeros",
    "a flipped bit in gzip",
    "a YAML bomb",
    "large metadata",
)
_ROOT = {"etc": None, "etc/x": b"y"}
_GOOD = tar({"metadata.yaml": METADATA}), packed(tarball(_ROOT), "gzip", "-c")
# (metadata, rootfs) of split images, each with one part that is wrong.
SPLIT: dict[str, tuple[bytes, bytes]] = {
    "a name that leads out": (_GOOD[0], tarball({**_ROOT, "../evil": b"x"})),
    "an absolute name": (_GOOD[0], tarball({**_ROOT, "/etc/evil": b"x"})),
    "a file below a link": (_GOOD[0], tarball({**_ROOT, "l": "/etc", "l/evil": b"x"})),
    "a root that is cut off": (_GOOD[0], _GOOD[1][:-9]),
    "a root that is none": (_GOOD[0], b"MZ" + bytes(5000)),
    "a root that is a bomb": (_GOOD[0], ZOO["10 GiB of zeros"][0](Path())[0]),
    "metadata that is a link": (tarball({"metadata.yaml": "/etc/shadow"}), _GOOD[1]),
    "metadata that leads out": (tarball({"metadata.yaml": YAML, "../evil": b"x"}), _GOOD[1]),
    "metadata that is a bomb": (ZOO["10 GiB of zeros"][0](Path())[0], _GOOD[1]),
    "templates that are a link": (
        tarball({"metadata.yaml": YAML + b"templates: {/etc/x: {template: shadow}}\n", "templates": "/etc"}),
        _GOOD[1],
    ),
    "no metadata": (tarball({"other": b"x"}), _GOOD[1]),
    "metadata that is cut off": (_GOOD[0][:-9], _GOOD[1]),
}


@pytest.fixture
def server() -> Iterator[ImageServer]:
    with serving() as found:
        found.offer()
        yield found


def _url(server: ImageServer, name: str, content: bytes) -> RemoteSource:
    about = {"LXD-Image-URL": f"{server.url}/{name}.tar", "LXD-Image-Hash": _hash(content)}
    server.files |= {f"/{name}": b"", f"/{name}.tar": content}
    server.headers[f"/{name}"] = about
    return RemoteSource("url", f"{server.url}/{name}", may_reach_inside=True)


def _streams(server: ImageServer, name: str, content: bytes) -> RemoteSource:
    server.offer_unified(name, content)
    return RemoteSource("simplestreams", server.url, name, by_alias=True, may_reach_inside=True)


def _lxd(server: ImageServer, name: str, content: bytes) -> RemoteSource:
    return _other_server(server, _hash(content), content, "application/octet-stream")


def _other_server(server: ImageServer, fingerprint: str, body: bytes, kind: str) -> RemoteSource:
    path = f"/1.0/images/{fingerprint}"
    about = {"fingerprint": fingerprint, "architecture": "x86_64", "public": True, "size": len(body)}
    server.files |= {path: json.dumps({"metadata": about}).encode(), f"{path}/export": body}
    server.headers[f"{path}/export"] = {"Content-Type": kind}
    return RemoteSource("lxd", server.url, fingerprint, may_reach_inside=True)


def _form(server: ImageServer, name: str, metadata: bytes, root: bytes) -> RemoteSource:
    body = b"".join(
        b'--B\r\nContent-Disposition: form-data; name="%s"; filename="f"\r\n\r\n%s\r\n' % part
        for part in ((b"metadata", metadata), (b"rootfs", root))
    )
    kind = "multipart/form-data; boundary=B"
    return _other_server(server, _hash(metadata + root), body + b"--B--\r\n", kind)


def _streams_in_parts(server: ImageServer, name: str, metadata: bytes, root: bytes) -> RemoteSource:
    server.offer_split(name, metadata, root)
    return RemoteSource("simplestreams", server.url, name, by_alias=True, may_reach_inside=True)


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


async def _brought(service: Service, source: RemoteSource) -> Operation:
    operation = await service.downloads.accept(Wanted("default", source))
    return await service.runner.wait(operation.id)


def _assert_refused(service: Service, names: Iterator[str], done: list[Operation]) -> None:
    for name, operation in zip(names, done, strict=True):
        assert operation.state == FAILED, name
        assert isinstance(operation.error(), Invalid), f"{name}: {operation.error_message}"
    assert service.files() == set()
    assert not list((service.root / "staging").iterdir())


async def test_what_a_server_calls_its_image_counts(service: Service, server: ImageServer) -> None:
    """Whoever took a property away there took it from all who copy the image; ours come on top."""
    content = unified()
    source = _lxd(server, "", content)
    path = f"/1.0/images/{_hash(content)}"
    about = json.loads(server.files[path])["metadata"] | {"properties": {"release": "2", "note": "a\nb"}}
    server.files[path] = json.dumps({"metadata": about}).encode()

    operation = await service.downloads.accept(Wanted("default", source, properties={"mine": "x"}))
    await service.runner.wait(operation.id)

    image = await service.get(_hash(content))
    assert dict(image.properties) == {"release": "2", "note": "a\nb", "mine": "x"}


@pytest.mark.parametrize("offer", [_url, _streams, _lxd])
async def test_a_hostile_image_is_refused_from_wherever_it_comes(
    service: Service, server: ImageServer, tmp_path: Path, offer: Callable[..., RemoteSource]
) -> None:
    sources = [offer(server, f"n{n}", ZOO[name][0](tmp_path)[0]) for n, name in enumerate(CHOSEN)]

    done = await asyncio.gather(*(_brought(service, source) for source in sources))

    _assert_refused(service, iter(CHOSEN), done)


@pytest.mark.parametrize("offer", [_form, _streams_in_parts])
async def test_a_hostile_part_is_refused_from_wherever_it_comes(
    service: Service, server: ImageServer, offer: Callable[..., RemoteSource]
) -> None:
    sources = [offer(server, f"n{n}", *parts) for n, parts in enumerate(SPLIT.values())]

    done = await asyncio.gather(*(_brought(service, source) for source in sources))

    _assert_refused(service, iter(SPLIT), done)


async def test_a_hostile_part_is_refused_of_an_upload(service: Service) -> None:
    """Which plain root file systems become, too."""
    done = await asyncio.gather(*(service.upload(*parts) for parts in SPLIT.values()))

    _assert_refused(service, iter(SPLIT), list(done))


@pytest.mark.parametrize("offer", [_url, _streams, _lxd])
async def test_what_is_other_than_its_server_says_is_refused(
    service: Service, server: ImageServer, offer: Callable[..., RemoteSource]
) -> None:
    """Other bytes under the fingerprint, and fewer of them, at every block of a small one."""
    content = packed(unified(**{"rootfs/noise": os.urandom(2000)}), "gzip", "-c")
    source = offer(server, "n", content)
    path = next(path for path, data in server.files.items() if data == content)
    for changed in (content[:-1] + b"x", content + b"x", *(content[:n] for n in range(1, len(content), 512))):
        server.files[path] = changed

        done = await _brought(service, source)

        assert done.state == FAILED
        assert service.files() == set()
