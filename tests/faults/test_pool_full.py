"""A pool that is full: who writes is told so, who launches is told so, and nothing is left behind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.harness import Victim

PREFIX, POOL = "fault-full-", "faultfull"
SIZE = "256MiB"
FILL = "dd if=/dev/zero of=/root/{} bs=1M; sync"


@pytest.fixture(autouse=True)
def pool(victim: Victim, no_leaks: None) -> Iterator[None]:
    victim.side.lxc("storage", "create", POOL, "btrfs", f"size={SIZE}")
    yield
    victim.side.delete_all(PREFIX)
    victim.side.lxc("storage", "delete", POOL)


def fill(victim: Victim, name: str) -> str:
    """Write until it fails, and return what dd said."""
    done = victim.side.try_lxc("exec", name, "--", "sh", "-c", FILL.format("big"), timeout_s=120)
    return done.stderr.decode()


def test_a_guest_that_fills_the_pool_is_told_and_can_be_deleted(victim: Victim) -> None:
    name = f"{PREFIX}a"
    victim.side.lxc("launch", victim.image, name, "-s", POOL)
    assert "No space left" in fill(victim, name)
    pushed = victim.side.try_lxc("file", "push", "-", f"{name}/root/more", stdin=b"x" * (4 << 20))
    assert b"pace" in pushed.stderr, pushed.stderr
    victim.side.lxc("delete", "--force", name)
    victim.side.lxc("launch", victim.image, name, "-s", POOL)


def test_launches_into_a_full_pool_work_or_say_why_and_leave_nothing(victim: Victim) -> None:
    """btrfs may still have room for folders when there is none for bytes; both is right, half is not."""
    victim.side.lxc("launch", victim.image, f"{PREFIX}a", "-s", POOL)
    fill(victim, f"{PREFIX}a")
    said = {}
    for n in range(4):
        done = victim.side.try_lxc("launch", victim.image, f"{PREFIX}b{n}", "-s", POOL)
        said[f"{PREFIX}b{n}"] = done.stderr.decode() if done.returncode else ""
    there = victim.instances(f"{PREFIX}b")
    for name, why in said.items():
        assert "Internal error" not in why
        # The client makes first and starts then: what could be made may stay, stopped and whole.
        assert name not in there or there[name]["status"] in (("Stopped",) if why else ("Running",))


def test_a_quota_bounds_its_guest_alone_and_grows_live(victim: Victim) -> None:
    name, other = f"{PREFIX}q", f"{PREFIX}o"
    victim.side.lxc("launch", victim.image, name, "-s", POOL, "-d", "root,size=32MiB")
    victim.side.lxc("launch", victim.image, other, "-s", POOL)
    assert "quota exceeded" in fill(victim, name)
    victim.side.lxc("exec", other, "--", "sh", "-c", "dd if=/dev/zero of=/root/x bs=1M count=16")
    victim.side.lxc("config", "device", "set", name, "root", "size=64MiB")
    victim.side.lxc("exec", name, "--", "sh", "-c", "dd if=/dev/zero of=/root/x bs=1M count=16; sync")
