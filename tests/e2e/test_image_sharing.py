"""Images given to others as the stock client arranges it: public ones, private ones, pushed ones."""

from __future__ import annotations

import hashlib
import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.conftest import Podium
from tests.fakes.image_server import METADATA, ImageServer, serving, tar

_UNIFIED = tar({"metadata.yaml": METADATA, "rootfs/etc/os-release": b"shared"})
_PRIVATE = tar({"metadata.yaml": METADATA, "rootfs/etc/os-release": b"private"})
_PUBLIC_IS, _PRIVATE_IS = (hashlib.sha256(image).hexdigest() for image in (_UNIFIED, _PRIVATE))


@pytest.fixture(scope="module")
def shared(podium: Podium) -> Iterator[Podium]:
    """Its own client knows it as three other servers: trusted, public, and of simplestreams."""
    url = f"https://{podium.settings.https_address}"
    podium.lxc("project", "create", "there", "-c", "features.images=true", "-c", "features.profiles=false")
    token = podium.lxc("config", "trust", "add", "--name", "sharer").split()[-1]
    podium.lxc("remote", "add", "self", token)
    podium.lxc("remote", "add", "public", url, "--public", "--accept-certificate")
    podium.lxc("remote", "add", "streams", url, "--protocol", "simplestreams")
    certificate = podium.rest.call("GET", "/1.0")["environment"]["certificate"]
    (podium.conf / "servercerts" / "streams.crt").write_text(certificate)
    folder = podium.conf / "images"
    folder.mkdir()
    for name, content in (("public", _UNIFIED), ("private", _PRIVATE)):
        (folder / name).write_bytes(content)
        more = ("--public",) if name == "public" else ()
        podium.lxc("image", "import", str(folder / name), "--alias", f"shared/{name}", *more)
    yield podium
    for name in (_PUBLIC_IS, _PRIVATE_IS):
        podium.lxc("image", "delete", name)
    podium.lxc("project", "delete", "there")
    for trusted in podium.rest.call("GET", "/1.0/certificates?recursion=1"):
        if trusted["name"] == "sharer":
            podium.rest.call("DELETE", f"/1.0/certificates/{trusted['fingerprint']}")
    for remote in ("self", "public", "streams"):
        podium.lxc("remote", "remove", remote)


def _stranger(podium: Podium, path: str, **headers: str) -> tuple[int, bytes]:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    request = urllib.request.Request(f"https://{podium.settings.https_address}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, context=context, timeout=10) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as refusal:
        return refusal.code, refusal.read()


@pytest.mark.parametrize("mode", ["pull", "push", "relay"])
@pytest.mark.parametrize("alias", ["shared/public", "shared/private"])
def test_an_image_is_copied_whoever_connects_to_whom(shared: Podium, mode: str, alias: str) -> None:
    # The client takes an alias of a public image for its fingerprint in these modes.
    wanted = _PUBLIC_IS if alias == "shared/public" and mode != "pull" else alias

    shared.lxc(
        *("image", "copy", wanted, "self:", "--mode", mode, "--target-project", "there"),
        *("--alias", "a/b/c", "--copy-aliases", "--public", "-q"),
    )

    found = shared.rest.call("GET", "/1.0/images?recursion=1&project=there")
    assert [i["fingerprint"] for i in found] == [_PUBLIC_IS if alias == "shared/public" else _PRIVATE_IS]
    assert sorted(a["name"] for a in found[0]["aliases"]) == ["a/b/c", alias] and found[0]["public"]
    shared.lxc("image", "delete", "a/b/c", "--project", "there")


@pytest.mark.parametrize("remote", ["public", "streams"])
def test_an_instance_is_made_from_each_remote(shared: Podium, remote: str) -> None:
    assert "shared/public" in shared.lxc("image", "list", f"{remote}:", "-f", "csv")

    shared.lxc("init", f"{remote}:shared/public", "brought", "--project", "there", "-q")

    (image,) = shared.rest.call("GET", "/1.0/images?recursion=1&project=there")
    assert image["fingerprint"] == _PUBLIC_IS and image["cached"]
    shared.lxc("delete", "brought", "--project", "there")
    shared.lxc("image", "delete", _PUBLIC_IS, "--project", "there")


def test_a_stranger_sees_what_is_public_and_nothing_else(shared: Podium) -> None:
    """What is private, what is in other projects and what is not there are the same to it."""
    listed = _stranger(shared, "/1.0/images")[1]
    assert _PUBLIC_IS.encode() in listed and _PRIVATE_IS.encode() not in listed
    assert _stranger(shared, "/1.0/images?project=nowhere") == _stranger(shared, "/1.0/images?project=there")
    for path in ("", "/export", "/export?secret=x", "?secret=x"):
        refusals = {
            _stranger(shared, f"/1.0/images/{name}{path}")
            for name in (_PRIVATE_IS, _PRIVATE_IS[:9], "f" * 64)
        }
        assert [status for status, _ in refusals] == [404], path
    assert _stranger(shared, "/1.0/images/aliases/shared%2Fprivate")[0] == 404
    assert _PRIVATE_IS.encode() not in _stranger(shared, "/streams/v1/images.json")[1]
    assert _stranger(shared, f"/images/{_PRIVATE_IS}/{_PRIVATE_IS}.tar.gz")[0] == 404
    assert _stranger(shared, f"/images/{_PUBLIC_IS}/%2e%2e%2fetc")[0] == 404


def test_a_file_is_had_in_pieces_and_not_again(shared: Podium) -> None:
    path = f"/images/{_PUBLIC_IS}/{_PUBLIC_IS}.tar.gz"
    assert _stranger(shared, path) == (200, _UNIFIED)
    assert _stranger(shared, path, Range="bytes=10-") == (206, _UNIFIED[10:])
    assert _stranger(shared, f"/1.0/images/{_PUBLIC_IS}/export", Range="bytes=-7") == (206, _UNIFIED[-7:])
    assert _stranger(shared, path, Range="bytes=999999999-")[0] == 416
    assert _stranger(shared, path, **{"If-None-Match": f'"{_PUBLIC_IS}-1"'})[0] == 304


def test_a_stranger_uploads_nothing_without_its_secret(shared: Podium) -> None:
    """And with it only that image, once."""
    wanted = json.dumps({"source": {"mode": "push", "fingerprint": "f" * 64}})
    told = shared.lxc("query", "-X", "POST", "-d", wanted, "/1.0/images?project=there")
    token = json.loads(told)["metadata"]["secret"]
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE

    def upload(secret: str, fingerprint: str, project: str = "there") -> int:
        headers = {"X-LXD-secret": secret, "X-LXD-fingerprint": fingerprint}
        url = f"https://{shared.settings.https_address}/1.0/images?project={project}"
        request = urllib.request.Request(url, _UNIFIED, {k: v for k, v in headers.items() if v})
        try:
            return int(urllib.request.urlopen(request, context=context, timeout=10).status)
        except urllib.error.HTTPError as refusal:
            return refusal.code

    wrong = [("", ""), ("x" * 64, "f" * 64), (token, _PUBLIC_IS), (token, ""), ("", "f" * 64)]
    assert {upload(*pair) for pair in wrong} == {403}
    assert upload(token, "f" * 64, "default") == 403
    assert upload(token, "f" * 64) == 202  # taken, and then refused for its hash
    assert upload(token, "f" * 64) == 403
    assert shared.rest.call("GET", "/1.0/images?project=there") == []


@pytest.fixture
def far(shared: Podium) -> Iterator[ImageServer]:
    with serving() as found:
        found.offer("far")
        yield found
    shared.rest.call("PATCH", "/1.0", {"config": {"images.mirrors": "", "images.offline": ""}})
    for url in shared.rest.call("GET", "/1.0/images?project=there"):
        shared.rest.call("DELETE", f"{url}?project=there")


def _bring(podium: Podium, server: str) -> dict[str, Any]:
    source = {"type": "image", "mode": "pull", "protocol": "simplestreams", "server": server, "alias": "far"}
    found: dict[str, Any] = podium.rest.call("POST", "/1.0/images?project=there", {"source": source})
    return found


def test_a_mirror_is_asked_first_and_its_server_when_it_fails(shared: Podium, far: ImageServer) -> None:
    with serving() as mirror:
        mirror.offer("far")
        mirror.files["/r20260101_0100"] = b"y" * len(mirror.files["/r20260101_0100"])
        mirrors = f"{far.url}=http://127.0.0.1:1,{mirror.url}"
        shared.rest.call("PATCH", "/1.0", {"config": {"images.mirrors": mirrors}})

        _bring(shared, far.url)

        assert "/r20260101_0100" in mirror.asked and "/r20260101_0100" in far.asked


def test_offline_nobody_is_asked(shared: Podium, far: ImageServer) -> None:
    """What is here is used, and what is not is refused with a sentence that says why."""
    _bring(shared, far.url)
    asked = len(far.asked)
    shared.rest.call("PATCH", "/1.0", {"config": {"images.offline": "true"}})

    _bring(shared, far.url)
    with pytest.raises(Exception, match=r"images\.offline"):
        _bring(shared, f"{far.url}/other")

    assert len(far.asked) == asked


def test_profiles_of_an_image_are_there_and_used(shared: Podium) -> None:
    """What an image names is checked when it is named, and what is made of it gets them."""
    path = f"/1.0/images/{_PRIVATE_IS}"
    with pytest.raises(Exception, match="Profile 'nowhere' doesn't exist"):
        shared.rest.call("PATCH", path, {"profiles": ["default", "nowhere"]})
    shared.lxc("profile", "create", "of-image")
    shared.rest.call("PATCH", path, {"profiles": ["default", "of-image"]})

    shared.lxc("init", "shared/private", "profiled", "-q")

    assert shared.rest.call("GET", "/1.0/instances/profiled")["profiles"] == ["default", "of-image"]
    shared.lxc("delete", "profiled")
    shared.rest.call("PATCH", path, {"profiles": ["default"]})
    shared.lxc("profile", "delete", "of-image")
