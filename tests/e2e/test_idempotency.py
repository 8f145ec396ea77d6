"""Guarantee 2: a request with a key is carried out once, whatever died between its tries."""

from __future__ import annotations

import json
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.e2e import raw_http
from tests.e2e.conftest import Podium
from tests.e2e.raw_http import Reply


def send(podium: Podium, key: str, method: str, path: str, body: dict[str, Any] | None = None) -> Reply:
    data = json.dumps(body).encode() if body is not None else b""
    headers = {"Idempotency-Key": key}
    return raw_http.send(podium.settings.socket_path, method, path, data, headers)


def create(podium: Podium, key: str, name: str, **more: Any) -> Reply:
    return send(podium, key, "POST", "/1.0/instances", {"name": name, "source": {"type": "none"}, **more})


def until_accepted(podium: Podium, key: str, name: str, **more: Any) -> Reply:
    """Send again as a client does that got no answer, or 503."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        try:
            reply = create(podium, key, name, **more)
        except OSError:
            reply = Reply(0, {}, b"")
        if reply.status not in (0, 503):
            return reply
        time.sleep(0.05)
    raise TimeoutError("no answer in 30 s")


def until_listed(podium: Podium) -> list[str]:
    end = time.monotonic() + 30
    while time.monotonic() < end:
        reply = raw_http.send(podium.settings.socket_path, "GET", "/1.0/instances")
        if reply.status == 200:
            return list(reply.envelope["metadata"])
        time.sleep(0.05)
    raise TimeoutError("no answer in 30 s")


def kill(podium: Podium, service: str) -> None:
    """SIGKILL; returns when a new process is in its place."""
    old = podium.processes()[service]
    os.kill(old, signal.SIGKILL)
    end = time.monotonic() + 30
    while podium.processes().get(service) in (None, old) and time.monotonic() < end:
        time.sleep(0.05)


def accepted(reply: Reply) -> str:
    assert reply.status == 202, reply.body
    return str(reply.envelope["operation"])


def ended(podium: Podium, reply: Reply) -> str:
    """Return the operation when it has ended well."""
    operation = accepted(reply)
    assert podium.rest.call("GET", f"{operation}/wait?timeout=60")["status_code"] == 200
    return operation


def forget(podium: Podium, *names: str) -> None:
    for name in names:
        podium.rest.call("DELETE", f"/1.0/instances/{name}")


@pytest.mark.parametrize("victim", ["gateway", "runtime"])
def test_a_twin_sent_after_a_death_gets_the_operation_of_the_first(podium: Podium, victim: str) -> None:
    """A launch is accepted, a process dies before or after the answer, and the client asks again."""
    name = f"once-{victim}"
    source = {"type": "image", "alias": "debian/12"}
    first = accepted(create(podium, f"key {victim}", name, source=source, start=True))
    kill(podium, victim)

    second = accepted(until_accepted(podium, f"key {victim}", name, source=source, start=True))

    assert second == first
    assert ended(podium, create(podium, f"key {victim}", name, source=source, start=True)) == first
    listed = until_listed(podium)
    assert [url for url in listed if url.endswith(f"/{name}")] == [f"/1.0/instances/{name}"]
    podium.lxc("delete", "--force", name)


def test_nameless_twins_make_one_instance(podium: Podium) -> None:
    """Without a key each would get a name of its own, and nothing would tell them apart."""
    before = set(podium.rest.call("GET", "/1.0/instances"))
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda _: create(podium, "nameless", ""), range(8)))

    assert len({ended(podium, reply) for reply in replies}) == 1
    made = set(podium.rest.call("GET", "/1.0/instances")) - before
    assert len(made) == 1
    forget(podium, made.pop().rsplit("/", 1)[-1])


def test_a_key_of_another_request_is_refused(podium: Podium) -> None:
    ended(podium, create(podium, "mine", "once-a"))
    for reply in (
        create(podium, "mine", "once-b"),
        send(podium, "mine", "DELETE", "/1.0/instances/once-a"),
        send(podium, "mine", "POST", "/1.0/instances?project=default", {"name": "once-a"}),
    ):
        assert reply.status == 409 and reply.is_refusal()
        assert "choose a new one" in reply.envelope["error"]
    forget(podium, "once-a")


def test_a_delete_sent_twice_is_one_operation(podium: Podium) -> None:
    podium.rest.call("POST", "/1.0/instances", {"name": "once-c", "source": {"type": "none"}})
    first = ended(podium, send(podium, "away", "DELETE", "/1.0/instances/once-c"))

    assert accepted(send(podium, "away", "DELETE", "/1.0/instances/once-c")) == first
    assert send(podium, "other", "DELETE", "/1.0/instances/once-c").status == 404


def test_a_refused_request_leaves_its_key_free(podium: Podium) -> None:
    """What was wrong can be put right and sent again under the same key."""
    assert create(podium, "free", "once-d", profiles=["none such"]).is_refusal()
    ended(podium, create(podium, "free", "once-d"))
    forget(podium, "once-d")


@pytest.mark.parametrize("key", ["", "x" * 129, "a\tb", "\x7f", "a\x80"])
def test_what_is_no_key_is_refused(podium: Podium, key: str) -> None:
    reply = create(podium, key, "once-e")
    assert reply.status == 400 and reply.is_refusal()


def test_an_upload_takes_no_key(podium: Podium) -> None:
    headers = {"Idempotency-Key": "k", "Content-Type": "application/octet-stream"}
    reply = raw_http.send(podium.settings.socket_path, "POST", "/1.0/images", b"x" * 1000, headers)
    assert reply.status == 400 and "upload" in reply.envelope["error"]


def test_a_file_pushed_with_a_key_is_whole(podium: Podium) -> None:
    """It is no operation, and its body was read for the key already."""
    podium.rest.call("POST", "/1.0/instances", {"name": "once-f", "source": {"type": "none"}})
    headers = {"Idempotency-Key": "push"}
    target = "/1.0/instances/once-f/files?path=/whole"
    assert raw_http.send(podium.settings.socket_path, "POST", target, b"x" * 100_000, headers).status == 200

    got = raw_http.send(podium.settings.socket_path, "GET", target)

    assert got.body.count(b"x") == 100_000
    forget(podium, "once-f")


def test_a_gateway_that_dies_amid_the_request_leaves_one_operation_that_ends(podium: Podium) -> None:
    """It dies before, while or after the runtime accepts; the call it made may be cancelled at any point."""
    for n in range(12):
        name, path = f"amid-{n}", podium.settings.socket_path
        body = json.dumps({"name": name, "source": {"type": "none"}}).encode()
        key = {"Idempotency-Key": name}
        with raw_http.connect(path) as first:
            first.sendall(raw_http.head("POST", "/1.0/instances", key, length=len(body)) + body)
            time.sleep(n / 1000)
            kill(podium, "gateway")

        ended(podium, until_accepted(podium, name, name))

        forget(podium, name)
