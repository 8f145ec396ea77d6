"""What a restricted project forbids: every restriction, and everything that no rule knows."""

from __future__ import annotations

import random

import pytest

from core.configkeys.instance import INSTANCE
from core.configkeys.project import RESTRICTIONS, check_project
from core.errors import Forbidden, Invalid
from core.policy import restrictions
from core.policy.rawidmap import parse_rawidmap
from core.policy.subjects import Subject
from core.records import Project


def a_project(**rules: str) -> Project:
    return Project("p1", "", {"restricted": "true", **{f"restricted.{k}": v for k, v in rules.items()}})


def a_container(config: dict[str, str] | None = None, **device: str) -> Subject:
    devices = {"x": {k.replace("_", "."): v for k, v in device.items()}} if device else {}
    return Subject("container", "c1", config or {}, devices)


FORBIDDEN = [
    ({"security.nesting": "true"}, "containers.nesting", "allow", "Container nesting is forbidden"),
    ({"security.nesting": "YES"}, "containers.nesting", "allow", "Container nesting is forbidden"),
    ({"security.privileged": "1"}, "containers.privilege", "allow", "Privileged containers are forbidden"),
    (
        {"security.syscalls.intercept.mknod": "true"},
        *("containers.interception", "allow", "Container syscall interception is forbidden"),
    ),
    (
        {"security.syscalls.intercept.mount": "true"},
        *("containers.interception", "full", 'Use of low-level config "security.syscalls.intercept.mount"'),
    ),
    ({"raw.lxc": "lxc.x=1"}, "containers.lowlevel", "allow", 'Use of low-level config "raw.lxc"'),
    ({"raw.apparmor": "x"}, "containers.lowlevel", "allow", 'Use of low-level config "raw.apparmor"'),
    ({"raw.seccomp": "x"}, "containers.lowlevel", "allow", 'Use of low-level config "raw.seccomp"'),
    ({"boot.host_shutdown_timeout": "3"}, "containers.lowlevel", "allow", "Use of low-level config"),
    ({"linux.kernel_modules": "x"}, "containers.lowlevel", "allow", "Use of low-level config"),
    ({"security.devlxd.images": "true"}, "containers.lowlevel", "allow", "Use of low-level config"),
    ({"security.guestapi.images": "true"}, "containers.lowlevel", "allow", "Use of low-level config"),
    ({"security.idmap.base": "1"}, "containers.lowlevel", "allow", "Use of low-level config"),
    ({"security.idmap.size": "1"}, "containers.lowlevel", "allow", "Use of low-level config"),
    ({"security.syscalls.whitelist": "x"}, "containers.lowlevel", "allow", "Use of low-level config"),
    ({"a.key.of.the.future": "x"}, "containers.lowlevel", "allow", "Use of low-level config"),
    ({"raw.idmap": "uid 1000 1000"}, "idmap.uid", "1000-2000", 'low-level "raw.idmap" element 0'),
]


@pytest.mark.parametrize(("config", "key", "allows", "words"), FORBIDDEN)
def test_a_key_is_forbidden_unless_its_restriction_allows_it(
    config: dict[str, str], key: str, allows: str, words: str
) -> None:
    """Alike in instances and profiles, and nothing is allowed by what is left out."""
    for kind in ("container", "profile"):
        with pytest.raises(Forbidden, match=words):
            restrictions.check(a_project(), [Subject(kind, "c1", config, {})])
    restrictions.check(a_project(**{key: allows}), [a_container(config)])
    restrictions.check(Project("p1"), [a_container(config)])


def test_a_refusal_names_value_key_object_and_project_as_lxd_does() -> None:
    with pytest.raises(Forbidden) as caught:
        restrictions.check(a_project(), [a_container({"security.nesting": "true"})])
    assert str(caught.value) == (
        'Invalid value "true" for config "security.nesting" on container "c1" of project "p1": '
        "Container nesting is forbidden"
    )


@pytest.mark.parametrize(
    "kind", ["unix-char", "unix-block", "unix-hotplug", "gpu", "usb", "infiniband", "proxy", "pci"]
)
def test_a_device_is_forbidden_unless_its_restriction_allows_it(kind: str) -> None:
    with pytest.raises(Forbidden, match=r'device "x" on container "c1" of project "p1": .* forbidden'):
        restrictions.check(a_project(), [a_container(type=kind)])
    restrictions.check(a_project(**{f"devices.{kind}": "allow"}), [a_container(type=kind)])


@pytest.mark.parametrize("kind", ["", "device-of-the-future"])
def test_a_device_that_no_rule_knows_is_forbidden(kind: str) -> None:
    with pytest.raises(Forbidden):
        restrictions.check(a_project(), [a_container(type=kind)])


@pytest.mark.parametrize(
    ("rules", "device", "words"),
    [
        ({}, {"source": "/srv", "path": "/mnt"}, "Attaching disks not backed by a pool is forbidden"),
        ({}, {"pool": "p", "source": "v", "path": "/mnt"}, ""),
        ({"devices.disk": "block"}, {"pool": "p", "source": "v", "path": "/mnt"}, "Disk devices are forbid"),
        ({"devices.disk": "block"}, {"pool": "p", "path": "/"}, ""),
        ({"devices.disk": "allow"}, {"source": "/srv", "path": "/mnt"}, ""),
        ({"devices.disk": "allow", "devices.disk.paths": "/srv"}, {"source": "/srv/a", "path": "/m"}, ""),
        ({"devices.disk": "allow", "devices.disk.paths": "/srv/"}, {"source": "/srv", "path": "/m"}, ""),
        (
            {"devices.disk": "allow", "devices.disk.paths": "/srv"},
            *({"source": "/srv/../etc", "path": "/m"}, 'Disk source path "/srv/../etc" not allowed'),
        ),
        (
            {"devices.disk": "allow", "devices.disk.paths": "/srv"},
            *({"source": "/srvx", "path": "/m"}, 'Disk source path "/srvx" not allowed'),
        ),
        (
            {"devices.disk": "allow", "devices.disk.paths": "/srv"},
            *({"source": "srv", "path": "/m"}, 'Disk source path "srv" not allowed'),
        ),
    ],
)
def test_disks_come_from_pools_or_allowed_paths(
    rules: dict[str, str], device: dict[str, str], words: str
) -> None:
    subject = Subject("container", "c1", {}, {"x": {"type": "disk", **device}})
    if not words:
        return restrictions.check(a_project(**rules), [subject])
    with pytest.raises(Forbidden, match=words):
        restrictions.check(a_project(**rules), [subject])
    return None


@pytest.mark.parametrize(
    ("rules", "device", "words"),
    [
        ({}, {"network": "br0"}, ""),
        ({}, {"nictype": "bridged", "parent": "br0"}, "Only managed network devices are allowed"),
        ({}, {"network": "br0", "ipv4.routes": "1.1.1.1/32"}, "Routes on the host are forbidden"),
        ({}, {"network": "br0", "ipv6.routes.external": "fd1::/64"}, "Routes on the host are forbidden"),
        ({"devices.nic": "allow"}, {"network": "br0", "ipv4.routes": "1.1.1.1/32"}, ""),
        ({"devices.nic": "block"}, {"network": "br0"}, "Network devices are forbidden"),
        ({"devices.nic": "allow"}, {"nictype": "bridged", "parent": "br0"}, ""),
        ({"networks.access": "br1, br0"}, {"network": "br0"}, ""),
        ({"networks.access": "br1"}, {"network": "br0"}, "Network not allowed in project"),
        (
            {"networks.access": "br1", "devices.nic": "allow"},
            *({"nictype": "macvlan", "parent": "eth0"}, "Network not allowed in project"),
        ),
    ],
)
def test_nics_use_networks_that_are_allowed(
    rules: dict[str, str], device: dict[str, str], words: str
) -> None:
    subject = Subject("container", "c1", {}, {"x": {"type": "nic", **device}})
    if not words:
        return restrictions.check(a_project(**rules), [subject])
    with pytest.raises(Forbidden, match=words):
        restrictions.check(a_project(**rules), [subject])
    return None


def test_containers_have_ids_of_their_own_unless_they_say_otherwise() -> None:
    """Each instance has a range that no other shares, so only an explicit no is against "isolated"."""
    isolated = a_project(**{"containers.privilege": "isolated"})
    restrictions.check(isolated, [a_container(), a_container({"security.idmap.isolated": "true"})])
    with pytest.raises(Forbidden, match="Non-isolated containers are forbidden"):
        restrictions.check(isolated, [a_container({"security.idmap.isolated": "false"})])
    with pytest.raises(Forbidden, match="Privileged containers are forbidden"):
        restrictions.check(isolated, [a_container({"security.privileged": "true"})])


def test_ids_of_the_host_are_mapped_only_where_all_of_them_are_allowed() -> None:
    project = a_project(**{"idmap.uid": "1000-2000", "idmap.gid": "1000"})
    restrictions.check(project, [a_container({"raw.idmap": "both 1000 0\nuid 1500-2000 1500-2000"})])
    for line in ("uid 1500-2001 1500-2001", "both 1001 1001", "uid 0 0", "gid 999 0", "nonsense"):
        with pytest.raises(Forbidden):
            restrictions.check(project, [a_container({"raw.idmap": line})])


@pytest.mark.parametrize("text", ["x 1 1", "uid 1", "uid 2-1 1-2", "uid 1-2 1", "uid -1 0", f"uid {2**32} 0"])
def test_a_broken_line_of_an_idmap_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_rawidmap(text)


def test_snapshots_and_backups_are_refused_where_they_are_blocked() -> None:
    with pytest.raises(Forbidden, match="doesn't allow for snapshot creation"):
        restrictions.check_snapshots(a_project())
    with pytest.raises(Forbidden, match="doesn't allow for backup creation"):
        restrictions.check_backups(a_project())
    restrictions.check_snapshots(a_project(snapshots="allow"))
    restrictions.check_backups(a_project(backups="allow"))
    restrictions.check_snapshots(Project("p1"))


def test_volatile_keys_are_the_servers() -> None:
    now = {"volatile.uuid": "1"}
    restrictions.check_volatile(a_project(), "c1", {"volatile.uuid": "1", "user.x": "2"}, now)
    with pytest.raises(Forbidden, match=r'^Setting "volatile.x" on container "c1" in project'):
        restrictions.check_volatile(a_project(), "c1", {"volatile.x": "1"}, now)


def test_every_key_of_instances_is_either_free_or_ruled() -> None:
    """A key that is added must be let in by hand; whoever adds one decides here."""
    restricted = a_project()
    forbidden = set()
    for name in INSTANCE.keys:
        try:
            restrictions.check(restricted, [a_container({name: "true"})])
        except Forbidden:
            forbidden.add(name)
    assert {n for n in INSTANCE.keys if n.startswith(("raw.", "security.syscalls.", "security.idmap."))} <= (
        forbidden | {"security.idmap.isolated"}
    )
    assert {"security.nesting", "security.privileged", "linux.kernel_modules"} <= forbidden


@pytest.mark.parametrize("seed", range(200))
def test_no_order_or_spelling_of_restrictions_lets_a_dangerous_key_in(seed: int) -> None:
    """Whatever else is allowed, what is blocked stays blocked."""
    choose = random.Random(seed)
    rules = {k: choose.choice(["allow", "block"]) for k, v in RESTRICTIONS.items() if v == "block"}
    project = Project("p1", "", {"restricted": choose.choice(["true", "1", "on"]), **rules})
    dangerous = {
        "restricted.containers.nesting": a_container(
            {"security.nesting": choose.choice(["true", "1", "on"])}
        ),
        "restricted.containers.lowlevel": a_container({choose.choice(["raw.lxc", "raw.seccomp"]): "x"}),
        **{
            f"restricted.devices.{k}": a_container(type=k)
            for k in ("gpu", "usb", "pci", "proxy", "unix-char", "unix-block", "unix-hotplug")
        },
    }
    for rule, subject in dangerous.items():
        if rules[rule] == "block":
            with pytest.raises(Forbidden):
                restrictions.check(project, [a_container(), subject])
        else:
            restrictions.check(project, [subject])


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"features.foo": "true"}, '^Invalid project configuration key "features.foo"$'),
        ({"limits.cpu": "x"}, 'key "limits.cpu" value: Invalid value for uint32 "x"'),
        ({"limits.memory": "10XB"}, 'key "limits.memory" value: Invalid value: 10XB$'),
        ({"restricted.backups": "maybe"}, r'value: Invalid value "maybe" \(not one of \[block allow\]\)$'),
        ({"restricted": "maybe"}, 'value: Invalid value for a boolean "maybe"$'),
        ({"restricted.devices.disk.paths": "a"}, 'value: Item "a": Must be absolute file path$'),
        ({"restricted.idmap.uid": "x"}, 'value: Item "x": Invalid number "x"$'),
        ({"images.compression_algorithm": "gzip; id"}, 'value: Invalid compression algorithm "gzip; id"$'),
        ({"features.profiles": "false", "restricted": "true"}, "^Projects without their own profiles cannot"),
        ({"restricted": "true"}, "^Projects without their own profiles cannot"),
    ],
)
def test_keys_of_projects_are_checked_with_lxds_words(config: dict[str, str], words: str) -> None:
    with pytest.raises(Invalid, match=words):
        check_project(config)


@pytest.mark.parametrize(
    ("allowed", "zone", "may"),
    [
        ("", "lab.example", False),
        ("lab.example", "lab.example", True),
        ("other.example, lab.example", "a.lab.example", True),
        ("lab.example", "notlab.example", False),
    ],
)
def test_a_restricted_project_has_the_zones_that_it_is_told(allowed: str, zone: str, may: bool) -> None:
    project = Project("p", config={"restricted": "true", "restricted.networks.zones": allowed})
    if may:
        restrictions.check_zone(project, zone)
    else:
        with pytest.raises(Forbidden, match="Network zone not allowed in project"):
            restrictions.check_zone(project, zone)
    restrictions.check_zone(Project("q"), zone)
