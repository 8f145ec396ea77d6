"""No way into a restricted project for what it forbids; limits hold when everybody comes at once."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.e2e.conftest import Podium

PROJECT = ("--project", "tight")
NESTING = "security.nesting=true"


def refused(podium: Podium, *args: str) -> str:
    done = podium.run(*args)
    assert done.returncode == 1, f"lxc {' '.join(args)} was allowed: {done.stdout.decode()}"
    return done.stderr.decode()


@pytest.fixture(scope="module", autouse=True)
def tight(podium: Podium) -> Iterator[None]:
    """A restricted project, and outside of it an instance with what it forbids, also in a snapshot."""
    podium.lxc("project", "create", "tight", "-c", "features.images=false", "-c", "restricted=true")
    podium.lxc("profile", "device", "add", "default", "root", "disk", "path=/", "pool=default", *PROJECT)
    podium.lxc("init", "debian/12", "plain", *PROJECT)
    podium.lxc("init", "debian/12", "danger", "-c", NESTING)
    podium.lxc("snapshot", "danger", "s0")
    yield
    podium.lxc("delete", "danger")
    rest = json.loads(podium.lxc("list", *PROJECT, "-f", "json"))
    podium.lxc("delete", *(i["name"] for i in rest), *PROJECT)
    podium.lxc("project", "delete", "tight")


@pytest.fixture(autouse=True)
def unbroken(podium: Podium) -> Iterator[None]:
    """Whatever a test tried, nothing in the project is what it forbids."""
    yield
    for instance in json.loads(podium.lxc("list", *PROJECT, "-f", "json")):
        assert instance["expanded_config"].get("security.nesting") != "true", instance["name"]
        assert not any(d["type"] == "proxy" for d in instance["expanded_devices"].values())


@pytest.mark.parametrize(
    "args",
    [
        ("init", "debian/12", "x", "-c", NESTING, *PROJECT),
        ("config", "set", "plain", NESTING, *PROJECT),
        ("config", "device", "add", "plain", "p", "proxy", "listen=tcp::9", "connect=tcp::9", *PROJECT),
        ("query", "-X", "PATCH", "/1.0/instances/plain?project=tight", "-d",
         '{"config": {"security.nesting": "1"}}'),
        ("profile", "set", "default", NESTING, *PROJECT),
        ("copy", "danger", "x", "--target-project", "tight"),
        ("copy", "danger/s0", "x", "--target-project", "tight"),
        ("move", "danger", "--target-project", "tight"),
    ],
)  # fmt: skip
def test_every_way_to_write_an_instance_is_refused(podium: Podium, args: tuple[str, ...]) -> None:
    assert "forbidden" in refused(podium, *args)


def test_a_profile_with_what_is_forbidden_is_not_even_made(podium: Podium) -> None:
    body = '{"name": "bad", "config": {"security.nesting": "true"}}'
    assert "forbidden" in refused(podium, "query", "-X", "POST", "/1.0/profiles?project=tight", "-d", body)


def test_a_backup_with_a_key_in_it_or_in_its_snapshot_is_refused(podium: Podium, tmp_path: Path) -> None:
    backup = str(tmp_path / "backup.tar.gz")
    podium.lxc("export", "danger", backup)
    assert "forbidden" in refused(podium, "import", backup, "x", *PROJECT)
    podium.lxc("config", "unset", "danger", "security.nesting")
    podium.lxc("export", "danger", backup)
    podium.lxc("config", "set", "danger", NESTING)
    assert "forbidden" in refused(podium, "import", backup, "x", *PROJECT)


def test_a_snapshot_from_freer_days_is_not_restored(podium: Podium) -> None:
    podium.lxc("project", "set", "tight", "restricted.containers.nesting", "allow")
    podium.lxc("project", "set", "tight", "restricted.snapshots", "allow")
    podium.lxc("config", "set", "plain", NESTING, *PROJECT)
    podium.lxc("snapshot", "plain", "free", *PROJECT)
    assert "Conflict detected" in refused(
        podium, "project", "set", "tight", "restricted.containers.nesting", "block"
    )
    podium.lxc("config", "unset", "plain", "security.nesting", *PROJECT)
    podium.lxc("project", "set", "tight", "restricted.containers.nesting", "block")
    podium.lxc("project", "unset", "tight", "restricted.snapshots")
    assert "forbidden" in refused(podium, "restore", "plain", "free", *PROJECT)
    assert "forbidden" in refused(podium, "copy", "plain/free", "y", *PROJECT)
    podium.lxc("delete", "plain/free", *PROJECT)


def test_what_is_blocked_as_a_whole_is_refused_in_lxds_words(podium: Podium, tmp_path: Path) -> None:
    words = 'Project "tight" doesn\'t allow for snapshot creation'
    assert words in refused(podium, "snapshot", "plain", *PROJECT)
    words = 'Project "tight" doesn\'t allow for backup creation'
    assert words in refused(podium, "export", "plain", str(tmp_path / "x"), *PROJECT)


def test_sixteen_creations_against_a_limit_of_five_make_what_is_left(podium: Podium) -> None:
    podium.lxc("project", "set", "tight", "limits.instances", "5")

    def create(n: int) -> int:
        return podium.run("init", "debian/12", f"many{n}", *PROJECT).returncode

    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(create, range(16)))
    assert found.count(0) == 4  # one is there already
    assert len(json.loads(podium.lxc("list", *PROJECT, "-f", "json"))) == 5
    state = json.loads(podium.lxc("query", "/1.0/projects/tight/state"))
    assert state["resources"]["instances"] == {"Limit": 5, "Usage": 5}
    podium.lxc("project", "unset", "tight", "limits.instances")


def test_a_project_with_limits_counts_volumes_and_disks(podium: Podium) -> None:
    assert 'has no "size" config set' in refused(podium, "project", "set", "tight", "limits.disk", "1GiB")
    names = [
        i["name"] for i in json.loads(podium.lxc("list", *PROJECT, "-f", "json")) if i["name"] != "plain"
    ]
    podium.lxc("delete", *names, *PROJECT)
    podium.lxc("config", "device", "override", "plain", "root", "size=512MiB", *PROJECT)
    podium.lxc("project", "set", "tight", "limits.disk", "1GiB")
    create = ("storage", "volume", "create", "default", "v1", *PROJECT)
    assert 'Custom volume "v1" in project "tight" has no "size"' in refused(podium, *create)
    assert 'Reached maximum aggregate value "1GiB"' in refused(podium, *create, "size=600MiB")
    podium.lxc(*create, "size=512MiB")
    assert "Reached maximum" in refused(
        podium, "config", "device", "set", "plain", "root", "size=513MiB", *PROJECT
    )
    podium.lxc("storage", "volume", "delete", "default", "v1", *PROJECT)
    podium.lxc("project", "unset", "tight", "limits.disk")


def test_an_empty_project_is_renamed(podium: Podium) -> None:
    podium.lxc("project", "create", "old-name")
    assert podium.lxc("project", "rename", "old-name", "new-name") == "Project old-name renamed to new-name\n"
    assert "Default LXD profile for project old-name" in podium.lxc(
        "profile", "list", "-f", "csv", "--project", "new-name"
    )
    podium.lxc("project", "delete", "new-name")


def test_who_was_switched_to_a_project_that_went_gets_out(podium: Podium) -> None:
    podium.lxc("project", "create", "going")
    podium.lxc("project", "switch", "going")
    try:
        podium.lxc("project", "rename", "going", "gone")
        assert "default" in podium.lxc("project", "list")
        assert "default" in podium.lxc("storage", "list")
        assert "not found" in refused(podium, "init", "debian/12", "lost")
    finally:
        podium.lxc("project", "switch", "default")
        podium.lxc("project", "delete", "gone")


def test_what_arrives_counts_in_the_disk_of_its_project(podium: Podium, tmp_path: Path) -> None:
    """Images and backups are cut off as soon as they are more than a project may hold."""
    podium.lxc("project", "create", "narrow", "-c", "limits.disk=1MiB")
    file = tmp_path / "file.tar.gz"
    file.write_bytes(b"\x1f\x8b\x08\0" + os.urandom(3 << 20))
    for args in (
        ("image", "import", str(file)),
        ("import", str(file)),
        ("storage", "volume", "import", "default", str(file), "x"),
    ):
        done = podium.run(*args, "--project", "narrow")
        assert done.returncode == 1, args
        assert 'aggregate value "1MiB" for "limits.disk"' in done.stderr.decode(), args
    podium.lxc("project", "delete", "narrow")
