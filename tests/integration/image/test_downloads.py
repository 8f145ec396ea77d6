"""Images brought from servers that are slow, broken, moved or hostile."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from tempfile import gettempdir

import pytest

from core.addresses import is_outside
from core.errors import Forbidden, Invalid, NotFound, PodiumError, TooLate
from services.image.ports import CAME, Known, RemoteSource
from services.image.sources.fetcher import multipart
from services.image.sources.remote import Fetchers
from tests.fakes.image_server import ImageServer, serving, tar


@pytest.fixture
def server() -> Iterator[ImageServer]:
    with serving() as found:
        yield found


def _streams(server: ImageServer, wanted: str = "mini") -> RemoteSource:
    return RemoteSource("simplestreams", server.url, wanted, by_alias=True, may_reach_inside=True)


async def _bring(source: RemoteSource) -> tuple[Known, str]:
    """Return what was said of the image, and the hash of what came."""
    said: list[Known] = []
    digest = hashlib.sha256()
    async for part, chunk in Fetchers("x86_64", Path(gettempdir())).parts(source, said.append):
        if part != CAME:
            digest.update(chunk)
    return said[0], digest.hexdigest()


async def test_an_image_comes_whole(server: ImageServer) -> None:
    fingerprint = server.offer()

    known, hashed = await _bring(_streams(server))

    assert known.fingerprint == hashed == fingerprint
    assert known.properties["os"] == "Mini"


async def test_a_look_brings_nothing(server: ImageServer) -> None:
    fingerprint = server.offer()

    known = await Fetchers("x86_64", Path(gettempdir())).look(_streams(server))

    assert known.fingerprint == fingerprint
    assert all(path.startswith("/streams") for path in server.asked)


async def test_nothing_is_asked_for_before_it_is_wanted(server: ImageServer) -> None:
    """So that many may find out that they want the same, and one brings it."""
    server.offer()
    said: list[Known] = []
    async with aclosing(Fetchers("x86_64", Path(gettempdir())).parts(_streams(server), said.append)) as parts:
        assert await anext(parts) == (CAME, b"0")
        await asyncio.sleep(0.2)

    assert said and all(path.startswith("/streams") for path in server.asked)


async def test_a_connection_that_breaks_is_taken_up_where_it_broke(server: ImageServer) -> None:
    """A gigabyte is not sent twice for the last megabyte."""
    fingerprint = server.offer(content=bytes(range(256)) * 64)
    server.breaks_at = {"/r20260101_0100": 100}

    _, hashed = await _bring(_streams(server))

    assert hashed == fingerprint
    assert server.asked.count("/r20260101_0100") == 2


async def test_a_part_with_another_hash_is_refused(server: ImageServer) -> None:
    server.offer()
    server.files["/r20260101_0100"] = b"y" * len(server.files["/r20260101_0100"])

    with pytest.raises(Invalid, match="another hash"):
        await _bring(_streams(server))


async def test_a_part_that_does_not_end_is_refused(server: ImageServer) -> None:
    server.offer()
    server.files["/r20260101_0100"] += b"more"

    with pytest.raises(Invalid, match="longer than"):
        await _bring(_streams(server))


@pytest.mark.parametrize("index", [b"", b"no json", b"[" * 100_000, b"[]", b'{"index": 3}'])
async def test_an_index_that_is_none_is_refused(server: ImageServer, index: bytes) -> None:
    server.files["/streams/v1/index.json"] = index

    with pytest.raises(PodiumError, match=r"JSON|not usable"):
        await _bring(_streams(server))


async def test_what_is_not_there_is_said(server: ImageServer) -> None:
    with pytest.raises(NotFound, match="not there"):
        await _bring(_streams(server))
    server.offer()
    with pytest.raises(NotFound, match="no image 'maxi'"):
        await _bring(_streams(server, "maxi"))
    with pytest.raises(TooLate, match="cannot be read"):
        await _bring(replace(_streams(server), server="http://127.0.0.1:1"))


async def test_a_redirect_is_followed_and_a_circle_ends(server: ImageServer) -> None:
    fingerprint = server.offer()
    server.files["/moved"] = server.files.pop("/r20260101_0100")
    server.redirects = {"/r20260101_0100": "/moved"}
    assert (await _bring(_streams(server)))[1] == fingerprint

    server.redirects = {"/r20260101_0100": "/r20260101_0100"}
    with pytest.raises(Invalid, match="circles"):
        await _bring(_streams(server))


async def test_servers_that_trickle_keep_nobody_else_waiting(server: ImageServer) -> None:
    """However many of them are asked: after a while they give up their places."""
    server.offer()
    server.offer_unified("slow", tar({"metadata.yaml": b"x"}))
    server.delays_s = {"/slow": 1.5}
    fetchers = Fetchers("x86_64", Path(gettempdir()), place_s=0.2)

    async def bring(wanted: str) -> None:
        async for _ in fetchers.parts(_streams(server, wanted), lambda _: None):
            pass

    async with asyncio.TaskGroup() as slow:
        for _ in range(4):
            slow.create_task(bring("slow"))
        await asyncio.sleep(0.1)
        async with asyncio.timeout(1.2):
            await bring("mini")


async def test_addresses_inside_are_not_asked(server: ImageServer) -> None:
    """Else anybody could make this host read its own network's pages, or a cloud's secrets, for them."""
    server.offer()
    for host in ("127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "169.254.169.254"):
        source = RemoteSource("simplestreams", f"http://{host}:{server.port}", "mini")
        with pytest.raises(Forbidden, match="inside"):
            await _bring(source)
    assert server.asked == []


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://x/y", "http://", "http://a b/", "x", "http://h:x/"]
)
async def test_only_the_web_is_asked(url: str) -> None:
    with pytest.raises(Invalid, match="no http or https"):
        await _bring(RemoteSource("url", url, may_reach_inside=True))


async def test_a_url_names_its_file_by_headers(server: ImageServer) -> None:
    content = tar({"metadata.yaml": b"x"})
    wanted = hashlib.sha256(content).hexdigest()
    server.files = {"/about": b"", "/file": content}
    source = RemoteSource("url", f"{server.url}/about", may_reach_inside=True)
    with pytest.raises(Invalid, match="LXD-Image-URL"):
        await _bring(source)
    server.headers = {"/about": {"LXD-Image-URL": f"{server.url}/file", "LXD-Image-Hash": wanted}}

    known, hashed = await _bring(source)

    assert known.fingerprint == hashed == wanted


@pytest.mark.parametrize(
    ("address", "outside"),
    [
        ("1.1.1.1", True),
        ("10.0.0.1", False),
        ("100.64.0.1", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        ("224.0.0.1", False),
        ("::ffff:10.0.0.1", False),
        ("64:ff9b::a00:1", False),
        ("2002:a00:1::", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("2606:4700::1111", True),
    ],
)
def test_what_is_inside(address: str, outside: bool) -> None:
    assert is_outside(address) is outside


@pytest.mark.parametrize("size", [1, 3, 7, 50, 10_000])
def test_a_form_is_read_in_pieces_of_any_size(size: int) -> None:
    body = (
        b'--B\r\nContent-Disposition: form-data; name="metadata"; filename="m"\r\n\r\nmeta\r\n--data'
        b'\r\n--B\r\nContent-Disposition: form-data; name="rootfs"; filename="r"\r\n\r\nroot\r\n--B--\r\n'
    )
    pieces = (body[at : at + size] for at in range(0, len(body), size))
    found: dict[str, bytes] = {}
    for part, data in multipart("multipart/form-data; boundary=B", pieces):
        found[part] = found.get(part, b"") + data

    assert found == {"metadata": b"meta\r\n--data", "rootfs": b"root"}


@pytest.mark.parametrize("body", [b"", b"--B\r\n", b'--B\r\nContent-Disposition: x; name="z"\r\n\r\n--B--'])
def test_a_form_that_is_none_is_refused(body: bytes) -> None:
    with pytest.raises(Invalid):
        list(multipart("multipart/form-data; boundary=B", iter([body])))
