"""Every route against everything a hostile or broken client may send.

The table of routes is the gateway's own, so a route that is added is attacked without a word here.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote, unquote, unquote_to_bytes

import pytest

from gateway.lxd.routes import table
from tests.e2e import raw_http
from tests.e2e.conftest import Podium, unharmed
from tests.e2e.hostile import (
    BAD_IMAGES,
    BAD_JSON,
    BAD_NAMES,
    BAD_QUERIES,
    BAD_TARGETS,
    BODIES,
    LONG,
    NO_HTTP,
    ODD_NAMES,
    ODD_QUERIES,
    VICTIMS,
    WITHOUT_JSON,
    WRONG,
)  # fmt: skip
from tests.e2e.raw_http import Reply, head
from tests.e2e.test_launch import wait_for

_OF_SERVER = re.compile(
    r"/(1\.0(/(projects|certificates|cluster|metrics|operations|resources|warnings)(/.*)?"
    r"|/storage-pools(/[^/]+(/resources)?)?)?)?"
)


def routes(*methods: str) -> list[tuple[str, str]]:
    """Return the routes by method; the instance routes once, not under each alias."""
    found = [(m, p) for m, p, _, _ in table() if not p.startswith(("/1.0/containers", "/1.0/virtual-m"))]
    return [(m, p) for m, p in found if not methods or m in methods]


def filled(path: str, name: str = "") -> str:
    """Return *path* with its segments filled: by *name*, or by the victim."""
    kind = path.split("/")[2] if path.count("/") > 1 else ""
    path = path.replace("{type}", "custom")
    return re.sub(r"\{[^}]+\}", lambda _: name or VICTIMS.get(kind, "none"), path)


@pytest.fixture(scope="module")
def watched(podium: Podium) -> Iterator[Podium]:
    """A member whose processes and logs must not be moved by anything this file does."""
    podium.lxc("init", "debian/12", "victim")
    podium.lxc("profile", "create", "victim")
    podium.lxc("project", "create", "victim")
    podium.lxc("storage", "create", "victim", "dir")
    podium.lxc("storage", "volume", "create", "victim", "victim")
    podium.lxc("storage", "volume", "snapshot", "victim", "victim", "victim")
    podium.lxc("snapshot", "victim", "victim")
    podium.lxc("network", "create", "victim", "ipv4.address=none", "ipv6.address=none")
    with unharmed(podium):
        yield podium
    assert podium.lxc("query", "/1.0/instances/victim")
    volumes = podium.rest.call("GET", "/1.0/storage-pools/victim/volumes/custom?recursion=1")
    for name in {volume["name"].split("/")[0] for volume in volumes}:
        podium.rest.call("DELETE", f"/1.0/storage-pools/victim/volumes/custom/{quote(name, safe='')}")
    for kind in ("instances", "profiles", "projects", "networks", "storage-pools"):
        for name in _made(podium, kind):
            podium.rest.call("DELETE", f"/1.0/{kind}/{quote(name, safe='')}")


def _made(podium: Podium, kind: str) -> list[str]:
    """Return the names that this file's requests left: the victims, and what was not refused."""
    found = [item["name"] for item in podium.rest.call("GET", f"/1.0/{kind}?recursion=1")]
    odd = {unquote(name) for name in ODD_NAMES.values()}
    return [name for name in found if name in odd or name.startswith(("victim", "hostile"))]


def expect(podium: Podium, cases: Iterator[tuple[str, bytes]], *, holds: Callable[[Reply], bool]) -> None:
    """Send every request and name all that were answered otherwise."""
    wrong = []
    for what, data in cases:
        try:
            reply = raw_http.exchange(podium.settings.socket_path, data)
        except TimeoutError:
            wrong.append(f"{what}: no answer in {raw_http.TIMEOUT_S} s")
            continue
        if not holds(reply):
            wrong.append(f"{what}: {reply.status} {reply.body[:300]!r}")
    assert not wrong, "\n".join([f"{len(wrong)} wrong answers", *wrong[:60]])


def request(method: str, target: str, body: bytes = b"", **headers: str) -> bytes:
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    return head(method, target, named, length=len(body)) + body


def test_every_route_that_reads_a_body_is_attacked() -> None:
    """Whoever adds a route adds what a well-formed body of it looks like."""
    missing = [route for route in routes("POST", "PUT", "PATCH") if route not in BODIES | WITHOUT_JSON]
    assert not missing


@pytest.mark.parametrize("what", BAD_JSON)
def test_what_is_no_json_object_is_refused(watched: Podium, what: str) -> None:
    def cases() -> Iterator[tuple[str, bytes]]:
        for method, path in BODIES:
            target = filled(path)
            yield f"{method} {path}", request(method, target, BAD_JSON[what])

    expect(watched, cases(), holds=Reply.is_refusal)


def fields(body: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, value in body.items():
        yield (*path, key), value
        if isinstance(value, dict):
            yield from fields(value, (*path, key))


def replaced(body: Any, path: tuple[str, ...], raw: str) -> str:
    """Return *body* as JSON with the text *raw* in place of one field."""
    if not path:
        return raw
    parts = [
        f"{json.dumps(k)}: {replaced(v, path[1:], raw) if k == path[0] else json.dumps(v)}"
        for k, v in body.items()
    ]
    return "{" + ", ".join(parts) + "}"


@pytest.mark.parametrize(("method", "path"), BODIES)
def test_a_field_of_the_wrong_type_is_refused(watched: Podium, method: str, path: str) -> None:
    target = filled(path)

    def cases() -> Iterator[tuple[str, bytes]]:
        for where, value in fields(BODIES[method, path]):
            for raw in WRONG[type(value)]:
                body = replaced(BODIES[method, path], where, raw)
                yield f"{method} {path} {'.'.join(where)}={raw}", request(method, target, body.encode())

    expect(watched, cases(), holds=Reply.is_refusal)


@pytest.mark.parametrize("what", [*BAD_NAMES, *ODD_NAMES])
def test_a_hostile_name_in_the_path_is_refused(watched: Podium, what: str) -> None:
    def cases() -> Iterator[tuple[str, bytes]]:
        for method, path in routes():
            if "{" not in path or method == "HEAD":  # whose answers have no body
                continue
            body = json.dumps(BODIES.get((method, path), {})).encode()
            yield f"{method} {path}", request(method, filled(path, (BAD_NAMES | ODD_NAMES)[what]), body)

    expect(watched, cases(), holds=Reply.is_refusal)


@pytest.mark.parametrize("what", [*BAD_NAMES, *ODD_NAMES])
def test_a_hostile_name_in_the_body_is_refused(watched: Podium, what: str) -> None:
    name = unquote_to_bytes((BAD_NAMES | ODD_NAMES)[what].encode("utf-8", "surrogateescape"))

    def cases() -> Iterator[tuple[str, bytes]]:
        for (method, path), body in BODIES.items():
            if "name" not in body or "certificates" in path or "aliases" in path:
                continue
            if what in ODD_NAMES and path == "/1.0/projects/{name}":
                continue  # renaming is refused as a whole
            escaped = json.dumps(name.decode("utf-8", "surrogateescape")).encode()
            whole = replaced(body, ("name",), escaped.decode()).encode()
            yield f"{method} {path}", request(method, filled(path), whole)

    expect(watched, cases(), holds=Reply.is_refusal if what in BAD_NAMES else Reply.is_healthy)


def test_the_name_of_a_log_may_be_of_any_length(watched: Podium) -> None:
    """One that no file system holds begins as those of records do, so that it is looked for."""

    def cases() -> Iterator[tuple[str, bytes]]:
        for method in ("GET", "DELETE"):
            for name in ("exec_" + "x" * 300, "exec_" + "\u00e9" * 200, "exec_%00", "exec_.."):
                yield name[:20], request(method, f"/1.0/instances/victim/logs/{name}")

    expect(watched, cases(), holds=Reply.is_refusal)


@pytest.mark.parametrize("query", BAD_QUERIES)
def test_a_hostile_query_is_answered(watched: Podium, query: str) -> None:
    """A project must exist, a filter must parse; 200 is right where a route has no such parameter.

    What is the server's has nothing to do with projects, so there none is looked for.
    """

    def cases(*, of_server: bool) -> Iterator[tuple[str, bytes]]:
        for method, path in routes("GET", "HEAD", "DELETE"):
            if bool(_OF_SERVER.fullmatch(path)) == of_server:
                yield f"{method} {path}", request(method, filled(path, "none") + f"?{query}")

    def is_right(r: Reply) -> bool:
        return r.is_healthy() or (r.status in range(400, 500) and not r.body)

    refuses = query.startswith("project")
    expect(watched, cases(of_server=True), holds=is_right)
    expect(
        watched,
        cases(of_server=False),
        holds=lambda r: is_right(r) and not (refuses and r.status == 200),
    )


@pytest.mark.parametrize("query", ODD_QUERIES)
def test_unknown_parameters_are_ignored_and_bad_ones_refused(watched: Podium, query: str) -> None:
    def cases() -> Iterator[tuple[str, bytes]]:
        for method, path in routes("GET", "HEAD", "DELETE"):
            yield f"{method} {path}", request(method, filled(path, "none") + f"?{query}")

    expect(watched, cases(), holds=lambda r: r.is_healthy() or (400 <= r.status < 500 and not r.body))


def test_a_wrong_method_is_405(watched: Podium) -> None:
    known: dict[str, set[str]] = {}
    for method, path in routes():
        known.setdefault(path, set()).add(method)
    known.pop("/1.0/images/aliases")  # by PUT and DELETE it reads as the image called aliases

    def cases() -> Iterator[tuple[str, bytes]]:
        for path, methods in known.items():
            for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "TRACE"} - methods:
                yield f"{method} {path}", request(method, filled(path, "none"), b"{}")

    expect(watched, cases(), holds=lambda r: r.is_refusal() and r.status == 405)


@pytest.mark.parametrize("target", BAD_TARGETS)
def test_an_unknown_path_is_404_in_the_envelope(watched: Podium, target: str) -> None:
    def cases() -> Iterator[tuple[str, bytes]]:
        for method in ("GET", "POST", "PUT", "DELETE"):
            yield method, request(method, target, b"{}")

    expect(watched, cases(), holds=lambda r: r.is_refusal() and r.status in (400, 404, 405))


@pytest.mark.parametrize("tag", ["x", '"', LONG, "\udcff", '""', "*, W/", "'; drop"])
def test_a_garbage_etag_is_412_and_never_worse(watched: Podium, tag: str) -> None:
    def cases() -> Iterator[tuple[str, bytes]]:
        for (method, path), body in BODIES.items():
            if method in ("PUT", "PATCH") and path.endswith(("{name}", "1.0")) and "warnings" not in path:
                target = filled(path)
                yield f"{method} {path}", request(method, target, json.dumps(body).encode(), If_Match=tag)

    strict = bool(tag.strip('"'))
    expect(watched, cases(), holds=lambda r: r.is_refusal() if strict else r.is_healthy())


@pytest.mark.parametrize(
    "value", ["-1", "x", "99999999999999999999", "1e3", "", " ", "0o600", "0x1ff", "\udcff", LONG, "07777777"]
)
@pytest.mark.parametrize("header", ["uid", "gid", "mode"])
def test_hostile_file_headers_are_refused(watched: Podium, header: str, value: str) -> None:
    target = "/1.0/instances/victim/files?path=/root/x"

    def cases() -> Iterator[tuple[str, bytes]]:
        yield header, request("POST", target, b"data", **{f"X-LXD-{header}": value})

    fine = value in ("", " ") or (header == "mode" and value == "07777777")
    expect(watched, cases(), holds=Reply.is_healthy if fine else Reply.is_refusal)


@pytest.mark.parametrize(
    "path", ["", "..", "/..", "a\0b", "/dev/../../x", "/" + LONG, "/root/" + "d/" * 2000, "\udcff", "/"]
)
@pytest.mark.parametrize("kind", ["file", "directory", "symlink", "nonsense"])
def test_hostile_file_paths_never_leave_the_instance(watched: Podium, path: str, kind: str) -> None:
    target = f"/1.0/instances/victim/files?path={quote(path.encode('utf-8', 'surrogateescape'))}"

    def cases() -> Iterator[tuple[str, bytes]]:
        for method in ("POST", "GET", "DELETE"):
            yield method, request(method, target, b"../../../etc", X_LXD_type=kind)
            yield method, request(method, target, b"\xff\0", X_LXD_type=kind)

    expect(watched, cases(), holds=Reply.is_healthy)


def test_bodies_and_heads_beyond_all_measure_are_refused(watched: Podium) -> None:
    huge = b'{"description": "' + b"x" * (40 << 20) + b'"}'

    def cases() -> Iterator[tuple[str, bytes]]:
        yield "body", request("POST", "/1.0/profiles", huge)
        yield "claimed", head("POST", "/1.0/profiles", length=1 << 50) + b"{}" * 10
        yield "header", request("GET", "/1.0", b"", X_Large="x" * 200_000)
        yield "many headers", request("GET", "/1.0", b"", **{f"X{n}": "x" * 1000 for n in range(3000)})
        yield "target", request("GET", "/1.0?" + "x" * 200_000)

    expect(watched, cases(), holds=Reply.is_refusal)


@pytest.mark.parametrize("data", NO_HTTP)
def test_what_is_not_http_is_refused_or_dropped(watched: Podium, data: bytes) -> None:
    reply = raw_http.exchange(watched.settings.socket_path, data, half_close=True)
    assert reply.status == 0 or 400 <= reply.status < 500, reply


def test_bodies_cut_off_in_the_middle_leave_nothing_behind(watched: Podium) -> None:
    before = _running(watched)
    cut = b'Transfer-Encoding: chunked\r\n\r\n5\r\n{"nam\r\n40\r\ncut'
    for method, path in (*BODIES, ("POST", "/1.0/images"), ("POST", "/1.0/instances/{name}/files")):
        target = filled(path) + ("?path=/root/x" if "files" in path else "")
        for tail in (cut, b'Content-Length: 5000\r\n\r\n{"name": '):
            begin = f"{method} {target} HTTP/1.1\r\nHost: x\r\n".encode()
            with raw_http.connect(watched.settings.socket_path) as sock:
                sock.sendall(begin + tail)
    assert watched.rest.call("GET", "/1.0")
    wait_for(lambda: _running(watched) <= before)


def test_a_refusal_reaches_who_is_still_sending(watched: Podium) -> None:
    """The answer is there before the body is; its sender must not meet a closed connection instead."""
    begin = b"POST /1.0/instances/nobody/files?path=/root/x HTTP/1.1\r\nHost: x\r\n"
    with raw_http.connect(watched.settings.socket_path) as sock:
        sock.sendall(begin + b"Transfer-Encoding: chunked\r\n\r\n")
        time.sleep(0.1)
        for part in (b"5\r\nhello\r\n", b"0\r\n\r\nGET /1.0 HTTP/1.1\r\nHost: x\r\n\r\n"):
            sock.sendall(part)
            time.sleep(0.1)
        said = sock.recv(1 << 20)
    assert said.startswith(b"HTTP/1.1 404") and b"Instance not found" in said
    assert b"HTTP/1.1 200" in said, "the connection serves on"


def _running(podium: Podium) -> set[str]:
    return set(podium.rest.call("GET", "/1.0/operations").get("running", ()))


@pytest.mark.parametrize("body", BAD_IMAGES)
@pytest.mark.parametrize("header", ["", "filename", "properties", "public", "fingerprint"])
def test_what_is_no_image_is_refused_or_fails_with_a_sentence(
    watched: Podium, header: str, body: bytes
) -> None:
    headers = {"Content-Type": "application/octet-stream"}
    if body.startswith(b"--x"):
        headers["Content-Type"] = "multipart/form-data; boundary=x"
    if header:
        headers[f"X-LXD-{header}"] = "\udcff%00../../x"
    reply = raw_http.send(watched.settings.socket_path, "POST", "/1.0/images", body, headers)
    if reply.status == 202:
        url = f"{reply.envelope['operation']}/wait?timeout=20"
        done = raw_http.send(watched.settings.socket_path, "GET", url).envelope["metadata"]
        assert done["status_code"] == 400 and done["err"] and "Traceback" not in done["err"], done
    else:
        assert reply.is_refusal(), reply


def test_a_client_may_ask_before_it_sends(watched: Podium) -> None:
    """Expect: 100-continue is answered, then the body is judged as always; other expectations are 417."""
    body = b'{"name": 7}'
    asked = raw_http.exchange(
        watched.settings.socket_path,
        head("POST", "/1.0/profiles", {"Expect": "100-continue"}, length=len(body)) + body,
    )
    assert asked.is_refusal(), asked
    other = raw_http.exchange(
        watched.settings.socket_path,
        head("POST", "/1.0/profiles", {"Expect": "tea"}, length=len(body)) + body,
    )
    assert 400 <= other.status < 500, other


@pytest.mark.parametrize(("method", "path"), BODIES)
def test_unknown_fields_are_ignored_as_lxd_does(watched: Podium, method: str, path: str) -> None:
    """Newer clients send fields that older servers do not know; configuration keys are another matter."""
    body = json.dumps({"no-such-field": {"x": [1, {}]}, "name": 7}).encode()
    target = filled(path, "none")

    def cases() -> Iterator[tuple[str, bytes]]:
        yield f"{method} {path}", request(method, target, body)

    expect(watched, cases(), holds=Reply.is_healthy)
