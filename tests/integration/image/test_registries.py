"""Images brought from registries: what comes of their layers, and what is refused."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from core.errors import Forbidden, Invalid, NotFound, PodiumError
from services.image.ports import CAME, Known, RemoteSource
from services.image.sources.remote import Fetchers
from tests.fakes.registry import INDEX, MANIFEST, FakeRegistry, layer, registry, special


@pytest.fixture
def server() -> Iterator[FakeRegistry]:
    with registry() as found:
        yield found


def _source(server: FakeRegistry, wanted: str = "app:1", secret: str = "") -> RemoteSource:
    return RemoteSource("oci", server.url, wanted, by_alias=True, may_reach_inside=True, secret=secret)


async def _bring(source: RemoteSource, scratch: Path) -> tuple[Known, bytes, bytes]:
    """Return what was said of the image, its metadata and its root, both as they came."""
    said: list[Known] = []
    parts = {"metadata": b"", "rootfs": b""}
    try:
        async for part, chunk in Fetchers("x86_64", scratch).parts(source, said.append):
            if part != CAME:
                parts[part] += chunk
    finally:
        assert list(scratch.iterdir()) == []
    return said[0], parts["metadata"], parts["rootfs"]


async def _files(source: RemoteSource, scratch: Path) -> dict[str, tarfile.TarInfo]:
    _, _, root = await _bring(source, scratch)
    with _opened(root) as found:
        return {info.name: info for info in found}


def _opened(root: bytes) -> tarfile.TarFile:
    plain = subprocess.run(["zstd", "-dcq"], input=root, capture_output=True, check=True).stdout
    return tarfile.open(fileobj=io.BytesIO(plain), mode="r:")


async def test_layers_become_one_root(server: FakeRegistry, tmp_path: Path) -> None:
    """What a layer takes away is gone, what it brings again is the later one, and links hold."""
    base = layer(
        ("usr", None),
        ("usr/lib", None),
        ("lib", "usr/lib"),
        ("usr/lib/old", b"old"),
        ("usr/lib/kept", b"kept"),
        ("var", None),
        ("var/cache", b"much"),
        ("gone", b"x"),
        ("srv/closed/a", b"x"),
    )
    upper = layer(
        (".wh.gone", b""),
        ("lib/old", b"newer"),
        special("linked", tarfile.LNKTYPE, link="usr/lib/kept"),
        ("srv/closed/.wh..wh..opq", b""),
        ("srv/closed/b", b"y"),
        ("var/.wh.cache", b""),
        ("var/cache/now", b"a folder"),
    )
    server.push(base, upper)

    _, _, root = await _bring(_source(server), tmp_path)

    with _opened(root) as found:
        files = {i.name: found.extractfile(i).read() for i in found if i.isreg()}  # type: ignore[union-attr]
        linked = found.getmember("usr/lib/kept")
    assert files == {
        "linked": b"kept",
        "usr/lib/old": b"newer",
        "srv/closed/b": b"y",
        "var/cache/now": b"a folder",
    }
    assert (linked.type, linked.linkname) == (tarfile.LNKTYPE, "linked")


async def test_owners_modes_times_and_capabilities_are_kept(server: FakeRegistry, tmp_path: Path) -> None:
    tagged = special("bin/ping", tarfile.REGTYPE, uid=7, gid=8, mode=0o4755, mtime=1234)
    tagged.pax_headers = {
        "SCHILY.xattr.security.capability": "\x01\x00\x00\x02\x00 \x00\x00",
        "SCHILY.xattr.trusted.overlay.redirect": "/etc",
    }
    long = "long/" + "n" * 200
    server.push(layer(tagged, (long, b"x"), ("l", "t" * 150), special("pipe", tarfile.FIFOTYPE)))

    files = await _files(_source(server), tmp_path)

    ping = files["bin/ping"]
    assert (ping.uid, ping.gid, ping.mode, ping.mtime) == (7, 8, 0o4755, 1234)
    assert set(ping.pax_headers) == {"SCHILY.xattr.security.capability"}
    assert files[long].size == 1
    assert files["l"].linkname == "t" * 150
    assert files["pipe"].isfifo()


async def test_layers_come_at_the_same_time(server: FakeRegistry, tmp_path: Path) -> None:
    """And are laid upon each other in their order, whichever came first."""
    server.push(*(layer(("a", b"%d" % n), (f"own{n}", b"x" * n)) for n in range(6)))
    server.server.delays_s = {"/v2/app/blobs/": 0.2}

    _, _, root = await _bring(_source(server), tmp_path)

    assert server.server.most_at_once == 3
    with _opened(root) as found:
        top = found.extractfile("a")
        assert top and top.read() == b"5"
        assert {f"own{n}" for n in range(6)} <= set(found.getnames())


async def test_the_same_manifest_gives_the_same_bytes(server: FakeRegistry, tmp_path: Path) -> None:
    """So it has one fingerprint, under whatever tag it is asked for."""
    content = layer(("a", b"x" * 3_000_000), ("b", b"y"))
    digest = server.push(content)
    server.push(content, tag="latest")

    first = await _bring(_source(server), tmp_path)
    again = await _bring(_source(server, "app"), tmp_path)
    pinned = await _bring(_source(server, f"app@{digest}"), tmp_path)

    assert first[0].digest == again[0].digest == pinned[0].digest == digest
    assert first[1:] == again[1:] == pinned[1:]


async def test_how_it_is_run_is_told(server: FakeRegistry, tmp_path: Path) -> None:
    run = {
        "Entrypoint": ["/bin/server", "--flag"],
        "Cmd": ["a b"],
        "Env": ["A=1", "PATH=/bin", "B=x=y", "C=two\nlines"],
        "User": "web",
        "WorkingDir": "/srv/web",
        "StopSignal": "SIGQUIT",
        "ExposedPorts": {"80/tcp": {}},
    }
    people = layer(
        ("etc/passwd", b"root:x:0:0::/root:/bin/sh\nweb:x:33:44::/var/www:/bin/sh\n"), ("etc/group", b"")
    )
    digest = server.push(people, run=run)

    known, metadata, root = await _bring(_source(server), tmp_path)

    with tarfile.open(fileobj=io.BytesIO(metadata)) as found:
        told = yaml.safe_load(found.extractfile("metadata.yaml").read())  # type: ignore[union-attr]
    assert told == {
        "architecture": "x86_64",
        "creation_date": 1700000000,
        "properties": {"oci.digest": digest, "oci.ports": "80/tcp"},
        "oci": {
            "command": ["/bin/server", "--flag", "a b"],
            "cwd": "/srv/web",
            "uid": 33,
            "gid": 44,
            "environment": {"A": "1", "PATH": "/bin", "B": "x=y", "HOME": "/var/www"},
            "stop_signal": "SIGQUIT",
        },
    }
    assert known.properties == {"description": "app:1", "id": "app:1", "type": "oci"}
    with _opened(root) as found:
        assert {"dev", "proc", "sys", "srv/web"} <= set(found.getnames())


async def test_the_manifest_for_this_machine_is_taken(server: FakeRegistry, tmp_path: Path) -> None:
    wanted = server.push(layer(("a", b"x")))
    other = server.push(layer(("b", b"x")), config=lambda c: c.update(architecture="arm64"))
    size = {d: len(server.server.files[f"/v2/app/manifests/{d}"]) for d in (wanted, other)}
    offers = [
        {"mediaType": MANIFEST, "digest": d, "size": size[d], "platform": {"os": "linux", "architecture": a}}
        for d, a in ((other, "arm64"), (wanted, "amd64"))
    ]
    inner = server.tag({"schemaVersion": 2, "mediaType": INDEX, "manifests": offers}, tag="inner")
    nested = {"mediaType": INDEX, "digest": inner, "size": 1}
    server.tag({"schemaVersion": 2, "mediaType": INDEX, "manifests": [nested]}, tag="outer")

    assert (await _bring(_source(server, "app:inner"), tmp_path))[0].digest == wanted
    assert (await _bring(_source(server, "app:outer"), tmp_path))[0].digest == wanted
    server.tag({"schemaVersion": 2, "mediaType": INDEX, "manifests": offers[:1]}, tag="arm")
    with pytest.raises(NotFound, match="no such image for x86_64"):
        await _bring(_source(server, "app:arm"), tmp_path)


@pytest.mark.parametrize("program", ["zstd -q -c", "cat"])
async def test_layers_may_be_packed_in_each_way(server: FakeRegistry, tmp_path: Path, program: str) -> None:
    def packed(data: bytes) -> bytes:
        return subprocess.run(program.split(), input=data, capture_output=True, check=True).stdout

    server.push(layer(("a", b"x")), compress=packed)

    assert "a" in await _files(_source(server), tmp_path)


async def test_layers_without_an_entry_and_images_without_a_layer_are_some(
    server: FakeRegistry, tmp_path: Path
) -> None:
    server.push(layer(), layer(("a", b"x")), layer())
    assert "a" in await _files(_source(server), tmp_path)
    server.push()
    assert "proc" in await _files(_source(server), tmp_path)


async def test_a_name_without_a_folder_may_lie_in_the_library(server: FakeRegistry, tmp_path: Path) -> None:
    server.push(layer(("a", b"x")), name="library/debian", tag="12")

    assert (await _bring(_source(server, "debian:12"), tmp_path))[0].properties["id"] == "library/debian:12"


async def test_a_blob_that_breaks_off_is_taken_up_again(server: FakeRegistry, tmp_path: Path) -> None:
    server.push(layer(("a", os.urandom(100_000))))
    blob = max(server.server.files, key=lambda path: len(server.server.files[path]))
    server.server.breaks_at = {blob: 5000}

    await _bring(_source(server), tmp_path)

    assert server.server.asked.count(blob) == 2


BLOCK = tarfile.BLKTYPE
CHARACTER = tarfile.CHRTYPE
LINK = tarfile.LNKTYPE
HOSTILE: dict[str, tuple[tuple[Any, ...], str]] = {
    "a name that leads out": ((("../x", b""),), "leads out"),
    "a name that leads out below": ((("a/../../x", b""),), "leads out"),
    "an absolute name": ((("/etc/x", b""),), "not a relative path"),
    "a hard link that leads out": ((special("x", LINK, link="../etc/shadow"),), "leads out"),
    "an absolute hard link": ((special("x", LINK, link="/etc/shadow"),), "not a relative path"),
    "a hard link to nothing": ((special("x", LINK, link="nothing"),), "no file of the image"),
    "a hard link to a folder": ((("d", None), special("x", LINK, link="d")), "no file of the image"),
    "a block device": ((special("x", BLOCK, devmajor=8),), "device"),
    "a character device": ((special("srv/x", CHARACTER, devmajor=1, devminor=1),), "device"),
    "a file below a file": ((("a", b""), ("a/b", b"")), "below what is no folder"),
    "links in a circle": ((("a", "b"), ("b", "a"), ("a/x", b"")), "circles"),
    "a whiteout of the folder above": (((".wh...", b""),), "takes away"),
    "a whiteout of the folder itself": (((".wh..", b""),), "takes away"),
    "a whiteout of nothing": (((".wh.", b""),), "takes away"),
    "an owner that is none": ((special("x", tarfile.REGTYPE, uid=2**33),), "owner"),
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_layer_is_refused(server: FakeRegistry, tmp_path: Path, name: str) -> None:
    entries, words = HOSTILE[name]
    server.push(layer(("ok", b"x")), layer(*entries))

    with pytest.raises(Invalid, match=words):
        await _bring(_source(server), tmp_path)


def _sparse(*segments: tuple[int, int], real: int = 1000) -> bytes:
    """A layer with a sparse file of GNU's own format that has ten bytes in it."""
    info = tarfile.TarInfo("odd")
    info.size, info.type = 10, tarfile.GNUTYPE_SPARSE
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    for number, pair in enumerate(segments):
        block[386 + 24 * number : 410 + 24 * number] = b"%011o\0%011o\0" % pair
    block[483:495] = b"%011o\0" % real
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + b"x" * 10 + bytes(502 + 1024)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (_sparse((0, 5000), real=10_000), "more in it than was sent"),
        (_sparse((0, 5), (3, 5)), "do not fit"),
        (_sparse((0, 5), (998, 5)), "do not fit"),
        (_sparse((0, 10), real=3), "do not fit"),
    ],
)
async def test_a_sparse_file_that_cannot_be_is_refused(
    server: FakeRegistry, tmp_path: Path, content: bytes, words: str
) -> None:
    server.push(content)

    with pytest.raises(Invalid, match=words):
        await _bring(_source(server), tmp_path)


async def test_a_sparse_file_is_one_with_its_holes(server: FakeRegistry, tmp_path: Path) -> None:
    server.push(_sparse((0, 5), (500, 5), (1000, 0)))

    assert (await _files(_source(server), tmp_path))["odd"].size == 1000


async def test_links_that_lead_out_stay_in_the_image(server: FakeRegistry, tmp_path: Path) -> None:
    """They lead there in the instance too; only what is written through them must not leave the tree."""
    server.push(layer(("out", "../../../etc"), ("out/motd", b"x"), ("abs", "/srv"), ("abs/y", b"y")))

    files = await _files(_source(server), tmp_path)

    assert {"etc/motd", "srv/y", "out", "abs"} <= set(files)


async def test_devices_below_dev_are_left_out(server: FakeRegistry, tmp_path: Path) -> None:
    """Images are full of them, and each instance gets a /dev of its own."""
    server.push(layer(("dev", None), special("dev/null", CHARACTER, devmajor=1, devminor=3)))

    assert "dev/null" not in await _files(_source(server), tmp_path)


def _layers(count: int) -> Callable[[dict[str, Any]], None]:
    return lambda manifest: manifest.update(layers=manifest["layers"] * count)


def _set(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(found: dict[str, Any]) -> None:
        *way, last = path.split("/")
        inner: Any = found
        for step in way:
            inner = inner[int(step) if isinstance(inner, list) else step]
        inner[int(last) if isinstance(inner, list) else last] = value

    return change


ZEROS = f"sha256:{'0' * 64}"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_layers(10_000), "more than 256 layers"),
        (_set("layers", {}), "no list"),
        (_set("layers/0/size", 5), "longer than"),
        (_set("layers/0/size", 1 << 20), "ended after"),
        (_set("layers/0/size", -1), "size"),
        (_set("layers/0/size", 1 << 60), "size"),
        (_set("layers/0/size", "1"), "size"),
        (_set("layers/0/digest", "sha256:../../x"), "no digest"),
        (_set("layers/0/digest", "md5:00"), "no digest"),
        (_set("layers/0/digest", ZEROS), "not there"),
        (_set("layers/0/mediaType", "text/html"), "unknown type"),
        (_set("layers/0", "x"), "without saying which"),
        (_set("config/digest", ZEROS), "not there"),
        (_set("config/mediaType", "application/vnd.example+json"), "not a file system"),
        (_set("config/size", 9 << 20), "size"),
        (_set("schemaVersion", 1), "schema version 2"),
        (_set("mediaType", "x" * 1000), "unknown type"),
    ],
)
async def test_a_hostile_manifest_is_refused(
    server: FakeRegistry, tmp_path: Path, change: Callable[[dict[str, Any]], None], words: str
) -> None:
    server.push(layer(("a", b"x")), manifest=change)

    with pytest.raises(PodiumError, match=words):
        await _bring(_source(server), tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_set("rootfs/diff_ids/0", ZEROS), "something else"),
        (_set("rootfs/diff_ids", []), "tells of 0 layers"),
        (_set("rootfs", 3), "incomplete"),
        (_set("architecture", "toaster"), "unknown architecture"),
        (_set("os", "windows"), "not for Linux"),
        (_set("config/Cmd", "text"), "list"),
        (_set("config/Cmd", ["x"] * 5000), "command"),
        (_set("config/User", "nobody-knows"), "passwd does not know"),
        (_set("config/User", "0:nobody-knows"), "group does not know"),
        (_set("config/WorkingDir", "/a/../../b"), "working folder"),
        (_set("config/StopSignal", "SIGNOT"), "signal"),
    ],
)
async def test_a_hostile_configuration_is_refused(
    server: FakeRegistry, tmp_path: Path, change: Callable[[dict[str, Any]], None], words: str
) -> None:
    server.push(layer(("a", b"x")), config=change)

    with pytest.raises(Invalid, match=words):
        await _bring(_source(server), tmp_path)


@pytest.mark.parametrize(
    "manifest", [b"", b"no json", b"[" * 100_000, b"[]", b'{"a": ' * 50_000, b" " * (5 << 20)]
)
async def test_a_manifest_that_is_none_is_refused(
    server: FakeRegistry, tmp_path: Path, manifest: bytes
) -> None:
    server.server.files["/v2/app/manifests/1"] = manifest

    with pytest.raises(Invalid, match=r"JSON|schema version|larger than"):
        await _bring(_source(server), tmp_path)


async def test_indexes_within_indexes_end(server: FakeRegistry, tmp_path: Path) -> None:
    digest = server.push(layer(("a", b"x")))
    for _ in range(6):
        inner = {"mediaType": INDEX, "digest": digest, "size": 1}
        digest = server.tag({"schemaVersion": 2, "mediaType": INDEX, "manifests": [inner]}, tag="deep")

    with pytest.raises(Invalid, match="deeper than 3"):
        await _bring(_source(server, "app:deep"), tmp_path)


async def test_a_manifest_with_another_digest_is_refused(server: FakeRegistry, tmp_path: Path) -> None:
    digest = server.push(layer(("a", b"x")))
    server.server.files[f"/v2/app/manifests/{digest}"] += b" "

    with pytest.raises(Invalid, match="another digest"):
        await _bring(_source(server, f"app@{digest}"), tmp_path)


async def test_blobs_are_proved(server: FakeRegistry, tmp_path: Path) -> None:
    """Truncated, longer, or other than its digest says: nothing of it becomes an image."""
    server.push(layer(("a", b"x" * 5000)))
    config, content = [path for path in server.server.files if "/blobs/" in path]
    for path, spoil in (
        (content, lambda b: b[:-1]),
        (content, lambda b: b + b"x"),
        (content, lambda b: bytes([b[0] ^ 1]) + b[1:]),
        (config, lambda b: b.replace(b"linux", b"xunil")),
    ):
        whole = server.server.files[path]
        server.server.files[path] = spoil(whole)
        with pytest.raises(PodiumError, match=r"longer than|ended after|another digest"):
            await _bring(_source(server), tmp_path)
        server.server.files[path] = whole


@pytest.mark.parametrize("cut", [1, 100, 511, 512, 513, 1500])
async def test_an_archive_that_ends_too_early_is_refused(
    server: FakeRegistry, tmp_path: Path, cut: int
) -> None:
    server.push(layer(("a", b"x" * 5000))[:cut])

    with pytest.raises(Invalid):
        await _bring(_source(server), tmp_path)


async def test_a_bomb_is_refused(server: FakeRegistry, tmp_path: Path) -> None:
    """300 MB in a few bytes: no honest layer is packed so well."""
    head = bytearray(layer(("a", b""))[:512])
    head[124:136] = b"%011o\0" % (300 << 20)
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    server.push(bytes(head) + bytes(1024))

    with pytest.raises(Invalid, match="unpacks to more than"):
        await _bring(_source(server), tmp_path)


async def test_where_a_registry_leads_to_must_lie_outside(server: FakeRegistry, tmp_path: Path) -> None:
    """Who may name a registry inside names that one, and not what it leads to."""
    server.push(layer(("a", b"x")))
    blob = max(path for path in server.server.files if "/blobs/" in path)
    for host in ("localhost", "127.0.0.2", "[::1]", "169.254.169.254"):
        server.server.redirects = {blob: f"http://{host}:{server.server.port}/secret"}
        with pytest.raises(Forbidden, match="inside"):
            await _bring(_source(server), tmp_path)
    assert "/secret" not in server.server.asked
    with pytest.raises(Forbidden, match="inside"):
        await _bring(replace(_source(server), may_reach_inside=False), tmp_path)


@pytest.mark.parametrize(
    "wanted",
    ["", "UPPER", "a//b", "../a", "a/../b", "a:b:c", "a:" + "t" * 129, "a@sha256:0", "a?b", "a b", "-a"],
)
async def test_a_name_that_is_none_is_refused(server: FakeRegistry, tmp_path: Path, wanted: str) -> None:
    with pytest.raises(Invalid, match=r"is no (name|tag|digest)"):
        await _bring(_source(server, wanted), tmp_path)
    assert server.server.asked == []


def _guarded(server: FakeRegistry, *, realm: str = "") -> list[str]:
    """Let only those in who bring a token, which the service at *realm* gives; return what was shown."""
    shown: list[str] = []

    def guard(path: str, authorization: str) -> tuple[int, dict[str, str]] | None:
        shown.append(f"{path.split('?')[0]} {authorization}")
        if path.startswith("/token"):
            return None if authorization in ("", "Basic bWU6c2VjcmV0") else (401, {})
        if authorization == "Bearer good":
            return None
        where = realm or f"{server.url}/token"
        scope = "repository:app:pull"
        return 401, {"WWW-Authenticate": f'Bearer realm="{where}",service="us",scope="{scope}"'}

    server.server.guard = guard
    server.server.files["/token"] = json.dumps({"token": "good"}).encode()
    return shown


async def test_a_token_is_asked_for_where_one_is_wanted(server: FakeRegistry, tmp_path: Path) -> None:
    server.push(layer(("a", b"x")))
    _guarded(server)

    await _bring(_source(server), tmp_path)

    assert "/token?service=us&scope=repository%3Aapp%3Apull" in server.server.asked


async def test_user_and_password_go_to_the_service_for_tokens(server: FakeRegistry, tmp_path: Path) -> None:
    server.push(layer(("a", b"x")))
    shown = _guarded(server)

    await _bring(_source(server, secret="me:secret"), tmp_path)

    assert "/token Basic bWU6c2VjcmV0" in shown
    assert not any(line.startswith("/v2") and "Basic" in line for line in shown)
    with pytest.raises(Forbidden, match="refuses user and password"):
        await _bring(_source(server, secret="me:wrong"), tmp_path)


async def test_a_service_for_tokens_inside_is_not_asked(server: FakeRegistry, tmp_path: Path) -> None:
    server.push(layer(("a", b"x")))
    _guarded(server, realm=f"http://localhost:{server.server.port}/token")

    with pytest.raises(Forbidden, match="inside"):
        await _bring(_source(server, secret="me:secret"), tmp_path)
