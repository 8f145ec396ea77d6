"""Guarantee 1: who comes back with the last cursor misses no event and hears none twice."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from cli.failure import Refused
from cli.websocket import TEXT, WebSocket
from core.state.etcd3_compat import client, load
from tests.e2e import raw_http
from tests.e2e.conftest import Podium

_CHANGES = 200


def listen(podium: Podium, **query: str) -> tuple[socket.socket, Iterator[dict[str, Any]]]:
    """Return a listener's connection and its events; raises what refused it."""
    words = "&".join(f"{name}={value}" for name, value in query.items())
    connected = raw_http.connect(podium.settings.socket_path)
    websocket = WebSocket(connected, f"/1.0/events?{words}")
    return connected, (json.loads(m.payload) for m in websocket.messages() if m.opcode == TEXT)


def newest(podium: Podium) -> str:
    """Return the cursor of a change made for it."""
    connected, events = listen(podium, type="lifecycle")
    podium.rest.call("PATCH", "/1.0/profiles/default", {"description": f"changed at {time.time()}"})
    found = next(events)["cursor"]
    connected.close()
    return str(found)


class Patient(threading.Thread):
    """Makes changes; asks again when the gateway died, since each may be repeated."""

    def __init__(self, podium: Podium) -> None:
        super().__init__(daemon=True)
        self._podium = podium
        self.names: list[str] = []

    def run(self) -> None:
        for n in range(_CHANGES):
            self._until_done("POST", "/1.0/profiles", {"name": f"since-{n}"})
            self.names.append(f"since-{n}")
            if n % 20 == 0:
                body = {"name": f"since-{n}", "source": {"type": "none"}}
                self._until_done("POST", "/1.0/instances", body)

    def _until_done(self, method: str, path: str, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        while True:
            with contextlib.suppress(OSError, ValueError):
                reply = raw_http.send(self._podium.settings.socket_path, method, path, data)
                if reply.status in (200, 201, 202, 409):
                    return
                assert reply.status in (0, 503), reply.body
            time.sleep(0.05)


def test_a_listener_that_comes_back_misses_nothing_and_hears_nothing_twice(podium: Podium) -> None:
    """200 changes, two deaths of the gateway, and a client that hangs up at random moments."""
    start = since = newest(podium)
    maker, dice, heard, connects = Patient(podium), random.Random(7), list[dict[str, Any]](), 0
    maker.start()
    deaths = {60, 140}
    end = time.monotonic() + 90
    while not _is_complete(heard) and time.monotonic() < end:
        try:
            connected, events = listen(podium, since=since, type="lifecycle,operation")
        except (OSError, Refused) as exc:
            assert not isinstance(exc, Refused) or exc.status >= 500, exc
            time.sleep(0.05)
            continue
        connects += 1
        for _ in range(dice.randint(1, 25)):
            if _is_complete(heard) or (event := next(events, None)) is None:
                break
            heard.append(event)
            since = event["cursor"]
            if deaths and len(maker.names) >= min(deaths):
                deaths.discard(min(deaths))
                os.kill(podium.processes()["gateway"], signal.SIGKILL)
        connected.close()
    maker.join(30)

    assert connects > 15 and not deaths
    made = [_name(e) for e in heard if e["metadata"].get("action") == "profile-created"]
    assert made == [f"since-{n}" for n in range(_CHANGES)]
    revisions = [event["revision"] for event in heard]
    assert revisions == sorted(revisions)
    _, events = listen(podium, since=start, type="lifecycle,operation")
    at_once = [next(events) for _ in heard]
    assert at_once == heard
    _clean_up(podium, maker.names)


def _clean_up(podium: Podium, names: list[str]) -> None:
    for name in names:
        podium.rest.call("DELETE", f"/1.0/profiles/{name}")
    for name in names[::20]:
        podium.rest.call("DELETE", f"/1.0/instances/{name}")


def _is_complete(heard: list[dict[str, Any]]) -> bool:
    return any(_name(event) == f"since-{_CHANGES - 1}" for event in heard)


def _name(event: dict[str, Any]) -> str:
    return str(event["metadata"].get("source", "")).rsplit("/", 1)[-1]


def test_history_that_was_compacted_is_refused_before_the_upgrade(podium: Podium) -> None:
    """410 with the oldest revision left, from which a client can go on."""
    old, seen = newest(podium), newest(podium)
    etcd = client(podium.settings.etcd_endpoint)
    etcd.compact(int(seen))
    etcd.close()

    with pytest.raises(Refused) as refused:
        listen(podium, since=str(int(old) - 1))

    assert refused.value.status == 410
    assert f"from revision {seen} on" in str(refused.value)
    connected, _ = listen(podium, since=seen)
    connected.close()


@pytest.mark.parametrize("since", ["", "0", "-5", "x", "1.2.3", "999999999999", "%00", "1" * 200])
def test_nonsense_for_a_revision_is_refused_with_a_sentence(podium: Podium, since: str) -> None:
    with pytest.raises(Refused) as refused:
        listen(podium, since=since)
    assert refused.value.status == 400


def test_the_stock_client_monitors_as_before(podium: Podium) -> None:
    """It ignores the keys that it does not know."""
    environment = {**podium.environment, "LXD_DIR": str(podium.state_dir), "LXD_CONF": str(podium.conf)}
    argv = ["lxc", "monitor", "--type=lifecycle", "--format=json"]
    with subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE) as monitor:
        time.sleep(1)
        newest(podium)
        assert monitor.stdout
        line = json.loads(monitor.stdout.readline())
        monitor.kill()
    assert line["metadata"]["action"] == "profile-updated"


def test_a_listener_is_cut_off_when_its_gateway_lost_history(podium: Podium) -> None:
    """The gateway stands still, etcd restarts and forgets meanwhile: silence would look like completeness."""
    connected, events = listen(podium)
    seen = newest(podium)
    assert any(event["cursor"] == seen for event in events)
    processes = podium.processes()
    os.kill(processes["gateway"], signal.SIGSTOP)
    try:
        os.kill(processes["etcd"], signal.SIGKILL)
        _forget_history(podium)
    finally:
        os.kill(processes["gateway"], signal.SIGCONT)

    rescue = threading.Timer(40, connected.shutdown, [socket.SHUT_RDWR])
    rescue.start()
    list(events)
    assert rescue.is_alive(), "the listener was left waiting"
    rescue.cancel()
    with pytest.raises(Refused) as refused:
        listen(podium, since=seen)
    assert refused.value.status == 410
    # Whoever connects before the gateway has noticed the loss is cut off as well; then it follows again.
    end = time.monotonic() + 30
    while podium.run("launch", "debian/12", "since-again").returncode:
        assert time.monotonic() < end, "the gateway never followed again"
        podium.run("delete", "-f", "since-again")
    podium.lxc("delete", "-f", "since-again")


def _forget_history(podium: Podium) -> None:
    """Write something and compact all before it, as soon as etcd is back."""
    end = time.monotonic() + 20
    while True:
        try:
            etcd = client(podium.settings.etcd_endpoint)
            for text in ("a", "b", "c"):
                etcd.put("/test/nothing", text)
            etcd.compact(etcd.get("/test/nothing")[1].mod_revision)
            etcd.close()
            return
        except (load().Etcd3Exception, grpc.RpcError):
            if time.monotonic() > end:
                raise
            time.sleep(0.2)


def test_what_changed_is_named_down_to_its_part(podium: Podium, tmp_path: Path) -> None:
    """As LXD names it: whoever keeps a list of snapshots or backups by their events keeps it right."""
    since, volume = newest(podium), "/1.0/storage-pools/default/volumes/custom/told"

    podium.lxc("storage", "volume", "create", "default", "told")
    podium.lxc("storage", "volume", "snapshot", "default", "told", "s0")
    podium.lxc("storage", "volume", "rename", "default", "told/s0", "told/s1")
    podium.lxc("storage", "volume", "delete", "default", "told/s1")
    podium.lxc("storage", "volume", "export", "default", "told", f"{tmp_path}/x", "--quiet")
    podium.lxc("storage", "volume", "delete", "default", "told")
    podium.lxc("profile", "create", "told")
    podium.lxc("profile", "rename", "told", "told2")
    podium.lxc("profile", "delete", "told2")
    podium.lxc("image", "alias", "rename", "debian/12", "told")
    podium.lxc("image", "alias", "rename", "told", "debian/12")

    connected, events = listen(podium, type="lifecycle", since=since)
    heard = [next(events)["metadata"] for _ in range(13)]
    connected.close()
    assert [(e["action"], e["source"], e.get("context", {})) for e in heard] == [
        ("storage-volume-created", volume, {"type": "custom"}),
        ("storage-volume-snapshot-created", f"{volume}/snapshots/s0", {"type": "custom"}),
        ("storage-volume-snapshot-renamed", f"{volume}/snapshots/s1", {"old_name": "s0"}),
        ("storage-volume-snapshot-deleted", f"{volume}/snapshots/s1", {}),
        ("storage-volume-backup-created", f"{volume}/backups/backup0", {"type": "custom"}),
        ("storage-volume-backup-retrieved", f"{volume}/backups/backup0", {}),
        ("storage-volume-backup-deleted", f"{volume}/backups/backup0", {}),
        ("storage-volume-deleted", volume, {}),
        ("profile-created", "/1.0/profiles/told", {}),
        ("profile-renamed", "/1.0/profiles/told2", {"old_name": "told"}),
        ("profile-deleted", "/1.0/profiles/told2", {}),
        ("image-alias-renamed", "/1.0/images/aliases/told", {"old_name": "debian/12"}),
        ("image-alias-renamed", "/1.0/images/aliases/debian/12", {"old_name": "told"}),
    ]
