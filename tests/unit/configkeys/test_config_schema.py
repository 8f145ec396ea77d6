"""Tables of keys: what they accept, what they refuse, and why."""

from __future__ import annotations

import time

import pytest

from core.configkeys.instance import INSTANCE, PROFILE
from core.configkeys.network import NETWORK
from core.configkeys.others import SERVER
from core.configkeys.project import PROJECT
from core.configkeys.schema import Schema, without_empty
from core.errors import Invalid


def refusal(schema: Schema, name: str, value: str) -> str:
    with pytest.raises(Invalid) as caught:
        schema.check({name: value})
    return caught.value.reason


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("limits.cpu", "0-1"),
        ("limits.memory", "50%"),
        ("limits.processes", "500"),
        ("user.anything", "two\nlines"),
        ("cloud-init.user-data", "#cloud-config\npackages: []\n"),
        ("environment.PATH", "/bin:/usr/bin"),
        ("linux.sysctl.net.ipv4.ip_forward", "1"),
        ("limits.kernel.nofile", "1024:2048"),
        ("security.nesting", "true"),
    ],
)
def test_good_values_pass(name: str, value: str) -> None:
    INSTANCE.check({name: value})


@pytest.mark.parametrize(
    "name", ["raw.lxc", "raw.apparmor", "raw.seccomp", "security.syscalls.intercept.mount.fuse"]
)
def test_dangerous_keys_are_refused_with_a_reason(name: str) -> None:
    assert refusal(INSTANCE, name, "x") == "KEY_REFUSED"


@pytest.mark.parametrize(
    "name", ["security.syscalls.intercept.mknod", "nvidia.runtime", "migration.incremental.memory"]
)
def test_switches_that_would_have_no_effect_can_only_be_off(name: str) -> None:
    """Files that were written for LXD hold them as false."""
    INSTANCE.check({name: "false"})
    assert refusal(INSTANCE, name, "1") == "KEY_REFUSED"


@pytest.mark.parametrize("name", ["nonsense", "user.", "limits", "", "x" * 10_000, "boot.autostart\n"])
def test_unknown_keys_are_named(name: str) -> None:
    assert refusal(INSTANCE, name, "1") == "UNKNOWN_KEY"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("environment.A", "x\nlxc.hook.pre-start = /bin/sh"),
        ("environment.A=B", "x"),
        ("linux.sysctl.net.x", "1\nlxc.mount.entry = /"),
        ("linux.sysctl.../../kernel", "1"),
        ("linux.sysctl.a b", "1"),
        ("environment.A B", "x"),
        ("snapshots.pattern", "a\u2028b"),
        ("user.a", "NUL\0"),
        ("user.a\nb", "x"),
        ("limits.processes", "-1"),
        ("limits.cpu.priority", "11"),
    ],
)
def test_values_that_could_reach_a_line_of_their_own_are_refused(name: str, value: str) -> None:
    assert refusal(INSTANCE, name, value) == "BAD_VALUE"


def test_a_value_has_a_limit() -> None:
    assert refusal(INSTANCE, "user.big", "x" * (256 * 1024 + 1)) == "VALUE_TOO_LONG"


def test_profiles_have_no_image_and_volatile_keys() -> None:
    assert refusal(PROFILE, "image.os", "debian") == "UNKNOWN_KEY"
    assert refusal(PROFILE, "volatile.x", "1") == "UNKNOWN_KEY"


def test_networks_may_not_write_the_dnsmasq_configuration() -> None:
    assert refusal(NETWORK, "dns.domain", "a\ndhcp-script=/x") == "BAD_VALUE"
    assert refusal(NETWORK, "ipv4.address", "10.0.0.0/24") == "BAD_VALUE"


def test_an_empty_value_unsets() -> None:
    assert without_empty({"a": "", "b": "1"}) == {"b": "1"}


@pytest.mark.parametrize("schema", [INSTANCE, PROFILE, NETWORK, PROJECT, SERVER])
def test_every_default_passes_its_own_parser(schema: Schema) -> None:
    for key in schema.keys.values():
        if key.default:
            key.parse(key.default)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("images.auto_update_interval", "foo", "cannot set '{}' to 'foo': invalid integer"),
        ("images.auto_update_cached", "maybe", "cannot set '{}' to 'maybe': invalid boolean"),
        ("cluster.offline_threshold", "5", "cannot set '{}' to '5': Value must be greater than '10'"),
        (
            "cluster.max_voters",
            "2",
            "cannot set '{}' to '2': Value must be an odd number equal to or higher than 3",
        ),
        ("cluster.max_standby", "9", "cannot set '{}' to '9': Value must be between 0 and 5"),
        ("core.bgp_asn", "foo", "cannot set '{}' to 'foo': invalid integer"),
        ("core.bgp_asn", "65000", "{} is not supported: BGP is not available in this version"),
        ("core.bgp_routerid", "foo", "cannot set '{}' to 'foo': Not an IPv4 address \"foo\""),
        ("core.nosuch", "1", "cannot set '{}' to '1': unknown key"),
    ],
)
def test_server_keys_are_refused_as_lxd_refuses_them(key: str, value: str, said: str) -> None:
    with pytest.raises(Invalid) as caught:
        SERVER.check({key: value})
    assert str(caught.value) == said.format(key)


@pytest.mark.parametrize("text", ["[" * 262_000, "{a: " * 60_000, "- " * 131_000])
def test_text_for_cloud_init_costs_no_more_than_reading_it(text: str) -> None:
    """Opened brackets take the parser of YAML a time that grows with their square: a minute for 256 KiB."""
    began = time.thread_time()
    assert refusal(INSTANCE, "cloud-init.network-config", text) == "BAD_VALUE"
    assert time.thread_time() - began < 1
