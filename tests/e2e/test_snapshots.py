"""Snapshots, copies and moves by the stock client on a real host."""

from __future__ import annotations

import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.e2e.conftest import Podium

ROOT = Path(__file__).parents[2]


@pytest.fixture
def name(podium: Podium) -> Iterator[str]:
    """Names that begin like this are removed again."""
    prefix = f"snap-{secrets.token_hex(2)}"
    yield prefix
    for project in ("default", prefix):
        listed = podium.run("list", "--project", project, "-c", "n", "-f", "csv").stdout.decode().split()
        mine = [each for each in listed if each.startswith(prefix)]
        if mine:
            podium.lxc("delete", "--force", *mine, "--project", project)


@pytest.fixture
def pool(podium: Podium) -> Iterator[str]:
    made = f"dir{secrets.token_hex(2)}"
    podium.lxc("storage", "create", made, "dir")
    yield made
    podium.lxc("storage", "delete", made)


def test_a_running_instance_is_restored_with_what_the_guest_had(podium: Podium, name: str) -> None:
    podium.lxc("launch", "debian/12", name)
    script = "echo old >/root/f; ln /root/f /root/g; rm /etc/motd; setcap cap_net_raw+ep /bin/true 2>&1; sync"
    podium.run("exec", name, "--", "sh", "-c", script)
    podium.lxc("snapshot", name, "s0")
    podium.lxc("exec", name, "--", "sh", "-c", "echo new >/root/f; touch /etc/motd; rm -r /usr/share/doc")
    podium.lxc("restore", name, "s0")
    shown = podium.lxc(
        "exec",
        name,
        "--",
        "sh",
        "-c",
        "cat /root/g; stat -c %h /root/f; ls /etc/motd; ls -d /usr/share/doc; hostname; true",
    )
    assert shown.split() == ["old", "2", "/usr/share/doc", name]
    assert podium.lxc("list", name, "-c", "sS", "-f", "csv") == "RUNNING,1\n"


def test_snapshots_are_named_listed_renamed_and_deleted(podium: Podium, name: str) -> None:
    podium.lxc("init", "debian/12", name, "-c", "snapshots.expiry=1d")
    for words in ((), (), ("mine", "--no-expiry")):
        podium.lxc("snapshot", name, *words)
    refused = podium.run("snapshot", name, "mine")
    assert refused.returncode == 1
    assert b'This "instances_snapshots" entry already exists' in refused.stderr
    podium.lxc("snapshot", name, "mine", "--reuse")
    podium.lxc("rename", f"{name}/snap1", f"{name}/kept")
    podium.lxc("delete", f"{name}/snap0")
    assert [row.split(" | ")[0] for row in rows_of(podium.lxc("info", name))] == ["kept", "mine"]
    podium.lxc("config", "edit", f"{name}/kept", input=b"expires_at: 2031-02-03T04:05:06Z\n")
    shown = yaml.safe_load(podium.lxc("config", "show", f"{name}/kept"))
    assert str(shown["expires_at"]).startswith("2031-02-03 04:05:06")


def rows_of(info: str) -> list[str]:
    table = info.partition("Snapshots:\n")[2].splitlines()[3:]
    return [line.strip("| ") for line in table if line.startswith("|")]


def test_a_copy_starts_with_a_name_and_an_address_of_its_own(podium: Podium, name: str) -> None:
    """The source goes on running; its copy has its files, and another MAC address."""
    podium.lxc("launch", "debian/12", name)
    podium.lxc("exec", name, "--", "sh", "-c", "echo here >/root/f")
    podium.lxc("snapshot", name, "s0")
    podium.lxc("copy", name, f"{name}-b", "-c", "user.x=1")
    podium.lxc("start", f"{name}-b")
    assert podium.lxc("exec", f"{name}-b", "--", "cat", "/etc/hostname", "/root/f").split() == [
        f"{name}-b",
        "here",
    ]
    macs = {podium.lxc("config", "get", each, "volatile.eth0.hwaddr") for each in (name, f"{name}-b")}
    assert len(macs) == 2
    assert podium.lxc("config", "get", f"{name}-b", "user.x") == "1\n"
    assert podium.lxc("list", name, "-c", "nS", "-f", "csv") == f"{name},1\n{name}-b,1\n"


def test_a_copy_between_pools_is_whole_and_can_be_refreshed(podium: Podium, name: str, pool: str) -> None:
    """From btrfs to a folder and back again: links, whiteouts, owners and capabilities are kept."""
    podium.lxc("launch", "debian/12", name)
    script = "cd /root; echo a >f; ln f g; chown 1000:1001 f; rm /etc/motd; mknod p p; ln -s x l; chmod 751 f"
    podium.lxc("exec", name, "--", "sh", "-c", script)
    podium.lxc("snapshot", name, "s0")
    podium.lxc("copy", name, f"{name}-b", "-s", pool)
    podium.lxc("exec", name, "--", "sh", "-c", "echo bb >/root/f; rm /root/p")
    podium.lxc("snapshot", name, "s1")
    podium.lxc("copy", name, f"{name}-b", "--refresh", "-s", pool)
    podium.lxc("start", f"{name}-b")
    probe = "cat /root/g; stat -c '%a %u %g %h' /root/f; readlink /root/l; ls /etc/motd /root/p; true"
    seen = [podium.run("exec", each, "--", "sh", "-c", probe).stdout for each in (name, f"{name}-b")]
    assert seen[0] == seen[1] == b"bb\n751 1000 1001 2\nx\n"
    assert rows_of(podium.lxc("info", f"{name}-b"))[-1].startswith("s1")
    podium.lxc("stop", "--force", f"{name}-b")
    podium.lxc("move", f"{name}-b", f"{name}-c", "-s", "default")
    podium.lxc("start", f"{name}-c")
    assert podium.run("exec", f"{name}-c", "--", "sh", "-c", probe).stdout == seen[0]
    podium.lxc("restore", f"{name}-c", "s0")
    assert podium.lxc("exec", f"{name}-c", "--", "cat", "/root/f", "/etc/hostname").split() == [
        "a",
        f"{name}-c",
    ]


def test_a_move_to_another_project_takes_snapshots_along(podium: Podium, name: str) -> None:
    podium.lxc("project", "create", name, "-c", "features.images=false", "-c", "features.profiles=false")
    podium.lxc("init", "debian/12", name)
    podium.lxc("snapshot", name)
    mac = podium.lxc("config", "get", name, "volatile.eth0.hwaddr")
    podium.lxc("move", name, f"{name}-m", "--target-project", name)
    assert podium.lxc("list", "--project", name, "-c", "nS", "-f", "csv") == f"{name}-m,1\n"
    assert podium.lxc("config", "get", f"{name}-m", "volatile.eth0.hwaddr", "--project", name) == mac
    podium.lxc("start", f"{name}-m", "--project", name)
    podium.lxc("delete", "--force", f"{name}-m", "--project", name)
    podium.lxc("project", "delete", name)


def test_podium_has_the_same_verbs(podium: Podium, name: str) -> None:
    environment = {**podium.environment, "PYTHONPATH": str(ROOT)}

    def cli(*words: str) -> str:
        argv = [sys.executable, "-m", "cli", *words]
        done = subprocess.run(argv, capture_output=True, env=environment, cwd="/", timeout=120, check=False)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    cli("init", "debian/12", name)
    cli("snapshot", name, "s0", "--no-expiry")
    cli("snapshot", name, "s0", "--reuse")
    cli("rename", f"{name}/s0", f"{name}/s1")
    cli("restore", name, "s1")
    cli("copy", f"{name}/s1", f"{name}-b")
    cli("copy", name, f"{name}-b", "--refresh", "-c", "user.x=1")
    assert cli("config", "get", f"{name}-b", "user.x") == "1\n"
    cli("move", f"{name}-b", f"{name}-c")
    cli("rebuild", "debian/12", f"{name}-c")
    cli("rebuild", f"{name}-c", "--empty")
    assert cli("info", name) == podium.lxc("info", name)
    assert cli("config", "show", f"{name}/s1") == podium.lxc("config", "show", f"{name}/s1")
