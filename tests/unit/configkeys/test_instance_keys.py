"""Keys of instances: LXD's sentences word for word, and the parsers behind them."""

from __future__ import annotations

import pytest

from core.configkeys import instancekeys
from core.configkeys.instance import INSTANCE, PROFILE, check_expanded, check_profile
from core.configkeys.schedule import FORM, Cron, parse_schedule
from core.configkeys.values import RLIMITS, parse_rlimit, parse_syscalls
from core.errors import Invalid

_NO_MAP = "yaml: unmarshal errors:\n  line {}: cannot unmarshal {} into struct {{}}"
_UINT = 'Invalid value for uint32 "{0}": strconv.ParseUint: parsing "{0}": {1}'


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("boot.autostart", "maybe", 'Invalid value for a boolean "maybe"'),
        ("boot.autostart.delay", "x", 'Invalid value for an integer "x"'),
        ("boot.stop.priority", "1.5", 'Invalid value for an integer "1.5"'),
        ("cluster.evacuate", "foo", 'Invalid value "foo" (not one of [auto migrate live-migrate stop])'),
        ("limits.cpu", "x", "Invalid CPU limit syntax"),
        ("limits.cpu", "1,1", "Cannot define CPU multiple times"),
        ("limits.cpu.allowance", "50", "Invalid allowance: 50"),
        ("limits.cpu.priority", "11", 'Invalid value for a limit "11". Must be between 0 and 10'),
        ("limits.cpu.priority", "-1", 'Invalid value for a limit "-1". Must be between 0 and 10'),
        ("limits.disk.priority", "x", 'Invalid value for an integer "x"'),
        ("limits.memory", "0", "Memory limit can't be 0"),
        ("limits.memory", "0%", "Memory limit can't be 0%"),
        ("limits.memory", "1.5GB", "Invalid value: 1.5GB"),
        ("limits.memory", "10QB", "Invalid value: 10QB"),
        ("limits.memory.enforce", "foo", 'Invalid value "foo" (not one of [soft hard])'),
        ("limits.memory.swap", "1GiB", 'Invalid value for a boolean "1GiB"'),
        ("limits.hugepages.2MB", "x", "Invalid value: x"),
        ("limits.hugepages.4MB", "1GB", "Unknown configuration key: limits.hugepages.4MB"),
        ("limits.kernel.nofile", "abc", "Initialize LXC: Failed to set LXC config: lxc.prlimit.nofile=abc"),
        ("limits.kernel.", "1", "Unknown configuration key: limits.kernel."),
        ("security.idmap.base", "x", _UINT.format("x", "invalid syntax")),
        ("security.idmap.base", "4294967296", _UINT.format("4294967296", "value out of range")),
        ("snapshots.schedule", "foo", FORM),
        ("snapshots.schedule", "@foo", FORM),
        ("snapshots.schedule", "* * *", FORM),
        (
            "snapshots.schedule",
            "61 * * * *",
            "Error parsing schedule: end of range (61) above maximum (59): 61",
        ),
        ("snapshots.expiry", "foo", "Invalid expiry expression"),
        ("snapshots.expiry", "1w 1w", "Invalid expiry expression"),
        ("environment.FOO", "a\nb", "Environment variables cannot contain line breaks"),
        ("migration.incremental.memory", "x", 'Invalid value for a boolean "x"'),
        ("volatile.foo", "bar", "Unknown configuration key: volatile.foo"),
        ("volatile.foo.bar", "x", "Unknown configuration key: volatile.foo.bar"),
        ("volatile.uuid", "foo", "Invalid UUID"),
        ("volatile.cloud-init.instance-id", "zz", "Invalid UUID"),
        ("cloud-init.network-config", ": : x", "yaml: did not find expected key"),
        ("cloud-init.network-config", "{", "yaml: line 1: did not find expected node content"),
        ("cloud-init.network-config", "a:\n  - b\n c", "yaml: line 2: did not find expected key"),
        ("cloud-init.network-config", "x: 'y\n", "yaml: line 2: found unexpected end of stream"),
        ("cloud-init.network-config", '"x', "yaml: found unexpected end of stream"),
        ("cloud-init.network-config", "[a", "yaml: line 1: did not find expected ',' or ']'"),
        ("cloud-init.network-config", "x", _NO_MAP.format(1, "!!str `x`")),
        ("cloud-init.network-config", "#x\nabcdefghijklmnop", _NO_MAP.format(2, "!!str `abcdefg...`")),
        ("cloud-init.network-config", "yes", _NO_MAP.format(1, "!!bool `yes`")),
        ("cloud-init.network-config", "1.5", _NO_MAP.format(1, "!!float `1.5`")),
        ("cloud-init.network-config", "!foo x", _NO_MAP.format(1, "!foo `x`")),
        ("cloud-init.network-config", "- a", _NO_MAP.format(1, "!!seq")),
        ("cloud-init.network-config", "*x", "yaml: unknown anchor 'x' referenced"),
        ("cloud-init.user-data", "#cloud-config\nx", _NO_MAP.format(1, "!!str `x`")),
        ("cloud-init.vendor-data", "#cloud-config\n- a: b", _NO_MAP.format(1, "!!seq")),
        (
            "snapshots.schedule",
            "x * * * *",
            'Error parsing schedule: failed to parse int from x: strconv.Atoi: parsing "x": invalid syntax',
        ),
        ("security.secureboot", "true", "Unknown configuration key: security.secureboot"),
        ("foo", "bar", "Unknown configuration key: foo"),
    ],
)
def test_bad_values_are_refused_in_lxds_words(name: str, value: str, said: str) -> None:
    """Asked of LXD 5.0.2, which puts "Invalid config: " before them; scripts match on these."""
    with pytest.raises(Invalid) as caught:
        INSTANCE.check({name: value})
    assert caught.value.message == said


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("limits.memory", "101%"),
        ("limits.cpu.allowance", "150%"),
        ("limits.cpu.allowance", "25ms/100"),
        ("limits.kernel.nofile", "100:200"),
        ("limits.kernel.memlock", "unlimited"),
        ("security.syscalls.whitelist", "read\nwrite"),
        ("security.syscalls.deny", "mount errno 1\n# comment\n\nkeyctl"),
        ("security.guestapi", "false"),
        ("snapshots.schedule", "@hourly, @daily"),
        ("snapshots.schedule", "*/5 8-18 * jan-mar mon,tue"),
        ("volatile.eth0.hwaddr", "00:16:3e:aa:bb:cc"),
        ("volatile.last_state.power", "RUNNING"),
        ("linux.sysctl.net.ipv4.ip_forward", "1"),
        ("linux.sysctl.kernel.shmmax", "1"),
        ("linux.kernel_modules", "overlay,nf_nat"),
        ("image.os", "debian"),
        ("image.description", "two\nlines"),
    ],
)
def test_values_that_lxd_takes_are_taken(name: str, value: str) -> None:
    INSTANCE.check({name: value})


@pytest.mark.parametrize(
    "name", ["vm.swappiness", "kernel.core_pattern", "fs.file-max", "kernel.modprobe", "x"]
)
def test_sysctls_of_the_whole_host_are_refused(name: str) -> None:
    """A privileged instance would write them on the host: kernel.core_pattern alone is root there."""
    with pytest.raises(Invalid):
        INSTANCE.check({f"linux.sysctl.{name}": "1"})


@pytest.mark.parametrize("value", ["2:1", "unlimited:1", "-1", "", "1:", "1:2:3", "9" * 40])
def test_what_is_no_resource_limit_is_refused(value: str) -> None:
    with pytest.raises(ValueError):
        parse_rlimit(value)


def test_names_of_resource_limits_are_checked() -> None:
    """liblxc takes an unknown one for a mistake at start, long after it was written."""
    with pytest.raises(Invalid, match=r"Unknown configuration key: limits\.kernel\.foo"):
        INSTANCE.check({"limits.kernel.foo": "1"})
    assert "nofile" in RLIMITS


@pytest.mark.parametrize(
    "line", ["Foo", "a b c", "open; rm", "mount errno x", "a" * 70, "mount [0,1,SCMP_EVIL(]"]
)
def test_what_is_no_rule_for_a_system_call_is_refused(line: str) -> None:
    """These lines reach the filter's file as they are."""
    with pytest.raises(ValueError):
        parse_syscalls(line)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (
            {"security.syscalls.allow": "read", "security.syscalls.deny": "mount"},
            "security.syscalls.allow is mutually exclusive with security.syscalls.deny*",
        ),
        (
            {"security.syscalls.allow": "read", "security.syscalls.blacklist_default": "true"},
            "security.syscalls.allow is mutually exclusive with security.syscalls.deny*",
        ),
        (
            {"security.syscalls.allow": "read", "security.syscalls.whitelist": "read"},
            "Mutually exclusive keys security.syscalls.allow and security.syscalls.whitelist are set",
        ),
    ],
)
def test_keys_that_exclude_each_other_are_refused_together(config: dict[str, str], said: str) -> None:
    """Also when one comes from a profile: what counts is the merged object."""
    with pytest.raises(Invalid) as caught:
        check_expanded(config)
    assert caught.value.message == said


def test_a_profile_may_hold_what_only_virtual_machines_have() -> None:
    """Profiles serve both kinds; what is none of ours has no effect here."""
    check_profile({"security.secureboot": "false"})
    check_expanded({"security.secureboot": "false"})


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("volatile.foo", "Volatile keys can only be set on instances"),
        ("image.os", "Image keys can only be set on instances"),
    ],
)
def test_what_belongs_to_an_instance_is_no_matter_of_profiles(name: str, said: str) -> None:
    with pytest.raises(Invalid, match=said):
        check_profile({name: "x"})


def test_older_names_of_keys_mean_the_same() -> None:
    assert INSTANCE.get({"security.guestapi": "false"}, "security.devlxd") == "false"
    assert INSTANCE.get({}, "security.devlxd") == "true"


def test_every_key_says_what_it_does_or_why_not() -> None:
    for key in instancekeys.KEYS:
        assert key.refused or (key.doc and (key.applied or key.doc.startswith("can only be"))), key.name


def test_a_schedule_is_read_as_cron_reads_it() -> None:
    (hourly,) = parse_schedule("@hourly")
    assert hourly == parse_schedule("0 * * * *")[0]
    (found,) = parse_schedule("*/20 1,2 5/10 * mon-wed")
    assert isinstance(found, Cron)
    assert found.minutes == {0, 20, 40}
    assert found.hours == {1, 2}
    assert found.days == {5, 15, 25}
    assert found.weekdays == {1, 2, 3}
    assert found.either_day
    assert parse_schedule("@startup, @daily")[0] == "@startup"


@pytest.mark.parametrize("name", ["nosuch", "limits.nosuch"])
def test_a_key_that_is_none_cannot_even_be_unset(name: str) -> None:
    """Clients unset one by an empty value; LXD checks names before it drops those."""
    with pytest.raises(Invalid, match=f"Unknown configuration key: {name}"):
        PROFILE.check_known({"limits.cpu": "", name: ""})
