"""The liblxc configuration: what it says, and that no value can add a line to it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from core.errors import Invalid
from services.runtime.domain.idmaps import PRIVILEGED, id_map
from services.runtime.engine.config import render
from services.runtime.kernel.beneath import has_any
from services.runtime.ports import EnginePlan, Mount, NicPlan

NIC = NicPlan("eth0", "eth0", "veth12ab", "00:16:3e:00:00:01", 1500, "br0")
PLAN = EnginePlan("c1", "web", Path("/s/instances/c1/rootfs"), id_map(1000000), nics=(NIC,))
EVIL = ["a\nlxc.hook.start = /x", "a\rb", "a\0b", "a\x0bb", "a\x0cb", "a\x85b", "a\u2028b", "a\u2029b"]


def text_of(plan: EnginePlan, *, v2: bool = False) -> str:
    return render(plan, Path("/s/instances/c1"), seccomp=Path("/s/p"), hook=Path("/s/h"), v2=v2)


def lines_of(plan: EnginePlan, *, v2: bool = False) -> list[str]:
    return text_of(plan, v2=v2).splitlines()


def test_an_instance_is_confined() -> None:
    lines = lines_of(PLAN)
    assert "lxc.idmap = u 0 1000000 65536" in lines
    assert "lxc.idmap = g 0 1000000 65536" in lines
    assert "lxc.seccomp.profile = /s/p" in lines
    assert "lxc.cap.drop = mac_admin mac_override sys_time sys_module sys_rawio" in lines
    assert lines.index("lxc.cgroup.devices.deny = a") < lines.index("lxc.cgroup.devices.allow = c 1:3 rwm")


def test_its_cgroup_can_be_found_by_its_id() -> None:
    assert "lxc.cgroup.dir.container = podium/c1" in lines_of(PLAN)


def test_a_nic_is_a_veth_on_its_bridge() -> None:
    lines = lines_of(PLAN)
    assert "lxc.net.0.link = br0" in lines
    assert "lxc.net.0.veth.pair = veth12ab" in lines
    assert "lxc.net.0.hwaddr = 00:16:3e:00:00:01" in lines


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            {"nictype": "p2p", "bridge": "", "mtu": 0},
            "type=veth name=eth0 flags=up veth.pair=veth12ab hwaddr=M",
        ),
        (
            {"nictype": "macvlan", "parent": "eth9", "mtu": 1400},
            "type=macvlan name=eth0 flags=up link=eth9 macvlan.mode=bridge hwaddr=M mtu=1400",
        ),
        (
            {"nictype": "physical", "parent": "eth9", "mtu": 0},
            "type=phys name=eth0 flags=up link=eth9 hwaddr=M",
        ),
        (
            {
                "nictype": "ipvlan",
                "parent": "eth9",
                "mtu": 0,
                "hwaddr": "",
                "mode": "l3s",
                "addresses": ("192.0.2.9/32",),
                "gateways": {"ipv4": "dev"},
            },
            "type=ipvlan name=eth0 flags=up link=eth9 ipvlan.mode=l3s ipvlan.isolation=bridge l2proxy=1 "
            "ipv4.address=192.0.2.9/32 ipv4.gateway=dev",
        ),
        (
            {
                "nictype": "routed",
                "bridge": "",
                "mtu": 0,
                "addresses": ("192.0.2.9/32", "2001:db8::9/128"),
                "gateways": {"ipv4": "169.254.0.1", "ipv6": "fe80::1"},
            },
            "type=veth name=eth0 flags=up veth.pair=veth12ab hwaddr=M ipv4.address=192.0.2.9/32 "
            "ipv6.address=2001:db8::9/128 ipv4.gateway=169.254.0.1 ipv6.gateway=fe80::1",
        ),
    ],
)
def test_each_type_of_nic_is_made_by_the_engine(options: dict[str, Any], expected: str) -> None:
    """At a start; those that are plugged later must look the same."""
    lines = lines_of(dataclasses.replace(PLAN, nics=(dataclasses.replace(NIC, **options),)))
    found = [line.removeprefix("lxc.net.0.").replace(" = ", "=") for line in lines if "lxc.net.0." in line]
    assert " ".join(found).replace(NIC.hwaddr, "M") == expected


def test_without_nics_the_network_is_empty_and_not_the_hosts() -> None:
    lines = lines_of(dataclasses.replace(PLAN, nics=()))
    assert [line for line in lines if line.startswith("lxc.net")] == ["lxc.net.0.type = empty"]


def test_limits_carry_the_prefix_of_the_cgroup_version() -> None:
    plan = dataclasses.replace(PLAN, limits={"pids.max": "9"})
    assert "lxc.cgroup.pids.max = 9" in lines_of(plan)
    assert "lxc.cgroup2.pids.max = 9" in lines_of(plan, v2=True)


def test_blanks_in_paths_are_escaped_as_in_fstab() -> None:
    text = text_of(dataclasses.replace(PLAN, mounts=(Mount("/a b", "/c#d", read_only=True),)))
    assert "lxc.mount.entry = /a\\040b c\\043d none bind,create=dir,ro 0 0" in text


@pytest.mark.parametrize("path", ["../x", "/a/../../x", ".."])
def test_a_mount_cannot_leave_the_root(path: str) -> None:
    with pytest.raises(Invalid):
        text_of(dataclasses.replace(PLAN, mounts=(Mount("/a", path),)))


def _poisoned(evil: str) -> list[EnginePlan]:
    nics = [
        dataclasses.replace(NIC, name=evil),
        dataclasses.replace(NIC, host_name=evil),
        dataclasses.replace(NIC, hwaddr=evil),
        dataclasses.replace(NIC, bridge=evil),
    ]
    fields: list[dict[str, object]] = [
        {"id": evil},
        {"hostname": evil},
        {"environment": {"A": evil}},
        {"environment": {evil: "a"}},
        {"sysctls": {"net.x": evil}},
        {"sysctls": {evil: "1"}},
        {"rlimits": {"nofile": evil}},
        {"rlimits": {evil: "1"}},
        {"limits": {"pids.max": evil}},
        {"limits": {evil: "1"}},
        {"mounts": (Mount(evil, "/a"),)},
        {"mounts": (Mount("/a", evil),)},
    ]
    fields += [{"nics": (nic,)} for nic in nics]
    return [dataclasses.replace(PLAN, **field) for field in fields]  # type: ignore[arg-type]


@pytest.mark.parametrize("evil", EVIL)
def test_no_value_can_add_a_line(evil: str) -> None:
    for plan in _poisoned(evil):
        with pytest.raises(Invalid):
            text_of(plan)


@pytest.mark.parametrize("evil", ["\udc80", "a\ud800b"])
def test_what_cannot_be_written_as_utf8_is_refused(evil: str) -> None:
    with pytest.raises(Invalid):
        text_of(dataclasses.replace(PLAN, environment={"A": evil}))


@pytest.mark.parametrize(
    ("privileged", "nesting", "udev", "expected"),
    [
        (False, False, True, "proc:rw sys:rw"),
        (False, True, False, "proc:rw sys:rw"),
        (False, False, False, "proc:rw sys:mixed"),
        (True, True, True, "proc:mixed sys:mixed"),
    ],
)
def test_sys_is_writable_for_a_guest_whose_udev_needs_it(
    privileged: bool, nesting: bool, udev: bool, expected: str
) -> None:
    """systemd waits for udev wherever /sys is writable; to a privileged root nobody else says no."""
    idmap = PRIVILEGED if privileged else PLAN.idmap
    plan = dataclasses.replace(PLAN, idmap=idmap, nesting=nesting)
    text = render(plan, Path("/f"), seccomp=Path("/s"), hook=Path("/h"), v2=True, udev=udev)
    assert f"lxc.mount.auto = {expected} cgroup:mixed\n" in text


def test_a_guests_udev_is_found_through_its_own_links(tmp_path: Path) -> None:
    """/lib is a link of the guest's; one that leads out of it finds nothing of the host."""
    (tmp_path / "usr/lib/systemd").mkdir(parents=True)
    (tmp_path / "usr/lib/systemd/systemd-udevd").touch()
    (tmp_path / "lib").symlink_to("/usr/lib")
    (tmp_path / "etc").symlink_to("/etc")
    assert has_any(tmp_path, ["/lib/systemd/systemd-udevd"])
    assert not has_any(tmp_path, ["/etc/passwd", "/../../../etc/passwd", "/none"])
