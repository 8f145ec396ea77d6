"""Expansion, devices, id ranges, life cycle and environment of instances."""

from __future__ import annotations

from random import Random

import pytest

from core.configkeys.devices.registry import check_instance_devices
from core.errors import Invalid, LimitReached, WrongState
from core.names import instance_name
from core.policy.expansion import expand as expand_all
from core.records import Instance, Profile
from services.runtime.domain import expand, idmaps, lifecycle
from services.runtime.domain.target import Target, environment_of, refuse_unless_running
from services.runtime.domain.words import two_words

ROOT = {"type": "disk", "path": "/", "pool": "default"}
NIC = {"type": "nic", "network": "podiumbr0"}


def test_later_profiles_win_and_own_keys_win_over_all() -> None:
    profiles = [
        Profile(config={"user.a": "1", "user.b": "1"}),
        Profile(config={"user.b": "2", "user.c": "2"}),
    ]
    found = expand_all(profiles, Instance(config={"user.c": "3"}))
    assert found.config == {"user.a": "1", "user.b": "2", "user.c": "3"}


def test_an_own_device_replaces_an_inherited_one_as_a_whole() -> None:
    found = expand_all(
        [Profile(devices={"root": {**ROOT, "size": "5GiB"}})], Instance(devices={"root": ROOT})
    )
    assert found.devices == {"root": ROOT}


def test_the_root_disk_says_pool_and_size() -> None:
    assert expand.root_of({"r": {**ROOT, "size": "2GiB"}}) == expand.Root("default", 2 << 30)


@pytest.mark.parametrize("devices", [{}, {"a": ROOT, "b": ROOT}])
def test_there_is_exactly_one_root_disk(devices: dict[str, dict[str, str]]) -> None:
    with pytest.raises(Invalid):
        expand.root_of(devices)


@pytest.mark.parametrize(
    "device",
    [
        {},
        {"type": "teapot"},
        {"type": "gpu", "bogus": "1"},
        {"type": "nic"},
        {**NIC, "bogus": "1"},
        {"type": "disk", "path": "/etc", "source": "etc"},
        {"type": "disk", "path": "/"},
        {**ROOT, "size": "many"},
    ],
)
def test_a_device_that_cannot_work_is_refused_by_name(device: dict[str, str]) -> None:
    with pytest.raises(Invalid, match='Device validation failed for "d1"'):
        check_instance_devices({"d1": device})


def test_raw_keys_are_refused_even_when_a_profile_brings_them() -> None:
    found = expand_all([Profile(config={"raw.lxc": "lxc.hook.pre-start=/bin/sh"})], Instance())
    with pytest.raises(Invalid, match=r"raw\.lxc is not supported"):
        expand.check(found)


def test_id_ranges_never_overlap() -> None:
    taken: list[int] = []
    for _ in range(50):
        taken.append(idmaps.free_base(taken))
    assert all(b - a >= idmaps.SIZE for a, b in zip(sorted(taken), sorted(taken)[1:], strict=False))


def test_a_freed_id_range_is_used_again() -> None:
    assert idmaps.free_base([1_000_000, 1_131_072]) == 1_065_536


def test_no_range_left_is_said() -> None:
    with pytest.raises(LimitReached):
        idmaps.free_base(range(idmaps.FIRST, 2**31, idmaps.SIZE))


@pytest.mark.parametrize(
    ("state", "event", "words"),
    [
        ("running", "start", "already running"),
        ("stopped", "stop", "already stopped"),
        ("running", "delete", "is running"),
        ("creating", "start", "it cannot start now"),
        ("running", "rename", "not allowed"),
    ],
)
def test_a_wrong_change_of_state_says_why(state: str, event: str, words: str) -> None:
    with pytest.raises(WrongState, match=words):
        lifecycle.after(state, event, "web")


def test_generated_names_are_valid() -> None:
    assert all(instance_name(two_words(Random(seed))) for seed in range(100))


def test_asked_environment_wins_over_keys_and_keys_over_defaults() -> None:
    config = {"environment.LANG": "de", "environment.TERM": "vt", "user.x": "y"}
    found = environment_of({"TERM": "xterm"}, config, 0)
    assert (found["TERM"], found["LANG"], found["HOME"]) == ("xterm", "de", "/root")
    assert "HOME" not in environment_of({}, {}, 1000)


@pytest.mark.parametrize(("status", "words"), [("frozen", "is frozen"), ("stopped", "is not running")])
def test_commands_need_a_running_instance(status: str, words: str) -> None:
    with pytest.raises(WrongState, match=words):
        refuse_unless_running(Target("id", "default", "web", status))
