"""Columns and filters of `podium list`."""

from typing import Any

import pytest

from cli.columns import parse
from cli.failure import UsageError
from cli.filters import is_short_for, is_shown


def an_instance(**changes: Any) -> dict[str, Any]:
    addresses = [
        {"family": "inet", "address": "10.0.0.7", "scope": "global", "netmask": "24"},
        {"family": "inet6", "address": "fe80::1", "scope": "link", "netmask": "64"},
    ]
    return {
        "name": "web1",
        "status": "Running",
        "status_code": 103,
        "type": "container",
        "ephemeral": False,
        "architecture": "x86_64",
        "description": "",
        "created_at": "2026-11-24T06:55:18.7Z",
        "last_used_at": "1970-01-01T00:00:00Z",
        "profiles": ["default", "big"],
        "project": "default",
        "config": {"volatile.base_image": "e571a59b97bec9647f3f5a00"},
        "expanded_config": {"user.role": "frontend", "limits.cpu": "2"},
        "expanded_devices": {
            "root": {"type": "disk", "path": "/", "pool": "fast"},
            "eth0": {"network": "br0"},
        },
        "snapshots": None,
        "state": {
            "pid": 42,
            "processes": 7,
            "cpu": {"usage": 3_500_000_000},
            "memory": {"usage": 77_280_051, "total": 0},
            "disk": {"root": {"usage": 16384}},
            "network": {"eth0": {"addresses": addresses}},
        },
        **changes,
    }


@pytest.mark.parametrize(
    ("column", "title", "text"),
    [
        ("n", "NAME", "web1"),
        ("4", "IPV4", "10.0.0.7 (eth0)"),
        ("6", "IPV6", ""),
        ("b", "STORAGE POOL", "fast"),
        ("c", "CREATED AT", None),
        ("l", "LAST USED AT", ""),
        ("P", "PROFILES", "default\nbig"),
        ("f", "BASE IMAGE", "e571a59b97be"),
        ("m", "MEMORY USAGE", "73.70MiB"),
        ("M", "MEMORY USAGE%", ""),
        ("D", "DISK USAGE", "16.00KiB"),
        ("u", "CPU USAGE", "3s"),
        ("N", "PROCESSES", "7"),
        ("p", "PID", "42"),
        ("S", "SNAPSHOTS", "0"),
        ("t", "TYPE", "CONTAINER"),
        ("name", "NAME", "web1"),
        ("memory", "MEMORY USAGE", "73.70MiB"),
        ("user.role", "USER ROLE", "frontend"),
        ("config:user.role:ROLE:5", "ROLE", "front"),
        ("user.role:ROLE:0", "ROLE", "fron"),
        ("devices:eth0.network", "ETH0 NETWORK", "br0"),
    ],
)
def test_a_column_is_filled_from_an_instance(column: str, title: str, text: str | None):
    [found] = parse(column)

    assert found.title == title
    assert text is None or found.fill(an_instance()) == text


def test_what_only_runs_is_empty_for_a_stopped_instance():
    stopped = an_instance(status="Stopped", status_code=102)

    assert [column.fill(stopped) for column in parse("4mNpu")] == [""] * 5


def test_letters_need_no_commas_and_names_do():
    assert [c.title for c in parse("ns,4,state")] == ["NAME", "STATE", "IPV4", "STATE"]


@pytest.mark.parametrize("text", ["nQ", "n,,s", "L", "user.x:A:b", "user.x:A:-2", "config:", "a.b:c:1:d"])
def test_a_wrong_column_is_refused(text: str):
    with pytest.raises(UsageError):
        parse(text)


@pytest.mark.parametrize(
    ("filter", "is_found"),
    [
        ("web", True),
        ("eb1", False),
        ("w.*1", True),
        ("b1$", True),
        ("^eb", False),
        ("w[", False),
        ("type=container", True),
        ("status=stopped,running", True),
        ("architecture=aarch64", False),
        ("ipv4=10.0.0.0/24", True),
        ("ipv4=10.0.0.8", False),
        ("ipv6=fe80::/16", True),
        ("user.role=frontend", True),
        ("u.r=front.*", True),
        ("u.r=front", False),
        ("limits.cpu=2", True),
        ("nothing=2", False),
    ],
)
def test_a_filter_finds_what_the_stock_client_finds(filter: str, is_found: bool):
    assert is_shown(an_instance(), [filter]) is is_found


def test_all_filters_must_fit():
    assert not is_shown(an_instance(), ["web", "status=stopped"])


def test_keys_are_shortened_part_by_part():
    assert is_short_for("s.pr", "security.privileged")
    assert not is_short_for("s", "security.privileged")


def test_health_and_restarts_can_be_shown() -> None:
    """What Podium adds to LXD's columns; empty for what has neither."""
    shown = parse("name,health,restarts")
    config = {"volatile.health": "healthy", "volatile.restarts": "3"}
    assert [c.fill({"name": "web", "config": config}) for c in shown] == ["web", "HEALTHY", "3"]
    assert [c.fill({"name": "web", "config": {}}) for c in shown] == ["web", "", ""]
