"""The main path with the stock client: launch, look, run, stop, delete."""

from __future__ import annotations

import json
import time

import pytest

from tests.e2e.conftest import Podium


@pytest.fixture(scope="module")
def web(podium: Podium) -> str:
    podium.lxc("launch", "debian/12", "web")
    return "web"


def address_of(podium: Podium, name: str) -> str:
    found = json.loads(podium.lxc("query", f"/1.0/instances/{name}/state"))
    network = found["network"] or {}
    addresses = [a["address"] for a in network.get("eth0", {}).get("addresses", []) if a["family"] == "inet"]
    return addresses[0] if addresses else ""


def wait_for(what: object, timeout_s: float = 30.0) -> object:
    assert callable(what)
    end = time.monotonic() + timeout_s
    while not (found := what()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.1)
    return found


def test_a_launched_container_runs_systemd_and_has_an_address(podium: Podium, web: str) -> None:
    """The promise of the first line of the README."""
    state = wait_for(
        lambda: (
            (s := podium.run("exec", web, "--", "systemctl", "is-system-running").stdout.decode().strip())
            in ("running", "degraded")
            and s
        )
    )
    assert state in ("running", "degraded")
    wait_for(lambda: address_of(podium, web))
    assert address_of(podium, web) in podium.lxc("list", "--format", "csv", "-c", "n4")
    leases = podium.lxc("network", "list-leases", podium.settings.bridge)
    assert address_of(podium, web) in leases


def test_containers_find_each_other_by_name(podium: Podium, web: str) -> None:
    podium.lxc("launch", "debian/12", "db")
    wait_for(lambda: podium.run("exec", web, "--", "getent", "hosts", "db").returncode == 0)
    wait_for(lambda: podium.run("exec", web, "--", "ping", "-c1", "-W1", "db").returncode == 0)
    podium.lxc("delete", "-f", "db")


def test_exec_keeps_streams_apart_and_gives_the_exit_code(podium: Podium, web: str) -> None:
    done = podium.run("exec", web, "--", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.stdout, done.stderr, done.returncode) == (b"out\n", b"err\n", 7)


def test_exec_is_binary_clean_and_reads_stdin_to_its_end(podium: Podium, web: str) -> None:
    data = bytes(range(256)) * 4096
    done = podium.run("exec", web, "--", "cat", input=data)
    assert done.stdout == data


def test_a_missing_command_is_127(podium: Podium, web: str) -> None:
    assert podium.run("exec", web, "--", "no-such-command").returncode == 127


def test_files_go_in_and_out_unchanged(podium: Podium, web: str, tmp_path: object) -> None:
    data = b"\x00\xffbinary\n" * 1000
    podium.lxc("file", "push", "-", f"{web}/root/blob", input=data)
    done = podium.run("file", "pull", f"{web}/root/blob", "-")
    assert done.stdout == data
    assert podium.lxc("exec", web, "--", "stat", "-c", "%u:%g", "/root/blob").strip() == "0:0"
    podium.lxc("file", "delete", f"{web}/root/blob")
    assert podium.run("file", "pull", f"{web}/root/blob", "-").returncode != 0


def test_stop_start_restart_pause(podium: Podium, web: str) -> None:
    def status() -> str:
        return str(json.loads(podium.lxc("query", f"/1.0/instances/{web}"))["status"])

    podium.lxc("stop", "-f", web)
    assert status() == "Stopped"
    podium.lxc("start", web)
    podium.lxc("pause", web)
    assert status() == "Frozen"
    podium.lxc("start", web)
    podium.lxc("restart", "-f", web)
    assert status() == "Running"


def test_a_running_container_is_not_deleted(podium: Podium, web: str) -> None:
    done = podium.run("delete", web)
    assert done.returncode != 0
    assert b"running" in done.stderr.lower()


def test_config_and_profile_reach_the_instance(podium: Podium, web: str) -> None:
    podium.lxc("config", "set", web, "limits.memory", "256MiB")
    assert podium.lxc("config", "get", web, "limits.memory").strip() == "256MiB"
    assert podium.run("config", "set", web, "no.such.key", "1").returncode != 0
    podium.lxc("profile", "create", "small")
    podium.lxc("profile", "set", "small", "user.size", "s")
    podium.lxc("profile", "delete", "small")


def test_network_and_storage_commands(podium: Podium) -> None:
    bridge = podium.settings.bridge
    assert bridge in podium.lxc("network", "list")
    podium.lxc("network", "show", bridge)
    podium.lxc("network", "info", bridge)
    assert podium.run("network", "delete", bridge).returncode != 0
    assert "default" in podium.lxc("storage", "list")
    podium.lxc("storage", "info", "default")
    podium.lxc("storage", "create", "spare", "dir")
    podium.lxc("storage", "delete", "spare")


def test_image_is_exported_as_it_came(podium: Podium, tmp_path: object) -> None:
    podium.lxc("image", "export", "debian/12", str(tmp_path) + "/out")
    info = podium.lxc("image", "info", "debian/12")
    assert "Debian" in info
    podium.lxc(
        "image",
        "alias",
        "create",
        "deep/er/alias",
        json.loads(podium.lxc("query", "/1.0/images?recursion=1"))[0]["fingerprint"],
    )
    podium.lxc("image", "alias", "delete", "deep/er/alias")


def test_remote_over_https_with_a_token(podium: Podium, web: str) -> None:
    token = podium.lxc("config", "trust", "add", "--name", "laptop").strip().splitlines()[-1]
    podium.lxc("remote", "add", "far", token)
    assert web in podium.lxc("list", "far:")
    assert podium.run("exec", f"far:{web}", "--", "true").returncode == 0


@pytest.mark.parametrize(
    ("method", "url", "body"),
    [
        ("POST", "/1.0/instances", "{"),
        ("POST", "/1.0/instances", "[]"),
        ("POST", "/1.0/instances", '{"name": 7}'),
        ("POST", "/1.0/instances", '{"name": "a/b", "source": {"type": "image", "alias": "debian/12"}}'),
        ("POST", "/1.0/instances", '{"name": "..", "source": {"type": "none"}}'),
        ("POST", "/1.0/instances", '{"source": {"type": "wat"}}'),
        ("GET", "/1.0/instances/%2e%2e%2fetc", None),
        ("GET", "/1.0/instances/" + "x" * 10000, None),
        ("GET", "/1.0/nosuch", None),
        ("GET", "/1.0/instances/", None),
        ("PUT", "/1.0/instances/web/state", '{"action": "explode"}'),
        ("POST", "/1.0/networks", '{"name": "x; reboot"}'),
        ("POST", "/1.0/storage-pools", '{"name": "../../etc", "driver": "dir"}'),
        ("GET", "/1.0/images?filter=a%20b%20c", None),
        ("POST", "/1.0/profiles", '{"name": "p", "config": {"raw.lxc": "x"}}'),
    ],
)
def test_bad_input_gets_a_sentence_and_4xx(podium: Podium, method: str, url: str, body: str | None) -> None:
    import http.client

    from deploy.rest import _Connection

    connection: http.client.HTTPConnection = _Connection(podium.settings.socket_path, 10)
    connection.request(method, url, body)
    reply = connection.getresponse()
    answer = json.loads(reply.read())
    assert 400 <= reply.status < 500 or reply.status == 501, answer
    assert answer["type"] == "error"
    assert answer["error"]
    assert "Traceback" not in answer["error"]


def test_services_killed_while_a_container_runs_come_back_and_it_never_notices(
    podium: Podium, web: str
) -> None:
    """kill -9 of everything but etcd: same init, same answers, and launching works again."""
    import os
    import signal

    before = json.loads(podium.lxc("query", f"/1.0/instances/{web}/state"))["pid"]
    for name, pid in podium.processes().items():
        if name != "etcd":
            os.kill(pid, signal.SIGKILL)
    wait_for(lambda: podium.run("list").returncode == 0, 60)
    wait_for(lambda: podium.run("network", "list").returncode == 0, 60)
    wait_for(lambda: podium.run("image", "list").returncode == 0, 60)
    assert json.loads(podium.lxc("query", f"/1.0/instances/{web}/state"))["pid"] == before
    podium.lxc("launch", "debian/12", "after")
    podium.lxc("delete", "-f", "after")
    podium.lxc("delete", "-f", web)


def test_an_instance_without_an_init_says_that(podium: Podium) -> None:
    """In words, without the places in the engine's source."""
    podium.lxc("init", "empty", "--empty")
    said = podium.run("start", "empty").stderr.decode()
    podium.lxc("delete", "empty")
    assert "/sbin/init" in said and ".c:" not in said
