"""Plans of devices: from options and what the host has to nodes, rules and mounts."""

from __future__ import annotations

import pytest

from core.errors import WrongState
from services.runtime.domain import expand
from services.runtime.domain.devices.plan import (
    DevicePlan,
    End,
    HostDevice,
    HostNode,
    Node,
    Translation,
    rules_of,
)
from services.runtime.domain.devices.registry import follows_host, has_nodes, plan_devices
from tests.fakes.runtime_host import FakeFacts

Options = dict[str, str]


def _facts() -> FakeFacts:
    facts = FakeFacts()
    facts.nodes = {"/dev/fuse": HostNode("c", 10, 229), "/dev/loop7": HostNode("b", 7, 7)}
    stick = HostDevice("usb", "1d6b", "0002", "/dev/bus/usb/001/002", HostNode("c", 189, 1))
    tty = HostDevice("tty", "0403", "6001", "/dev/ttyUSB0", HostNode("c", 188, 0))
    card = HostDevice("drm", "10de", "1eb8", "/dev/dri/card0", HostNode("c", 226, 0), "0000:01:00.0")
    render = HostDevice("drm", "10de", "1eb8", "/dev/dri/renderD128", HostNode("c", 226, 128), "0000:01:00.0")
    other = HostDevice("drm", "8086", "1912", "/dev/dri/card1", HostNode("c", 226, 1), "0000:00:02.0")
    facts.found = [stick, tty, card, render, other]
    return facts


def _plan(options: Options, facts: FakeFacts | None = None) -> DevicePlan:
    (plan,) = plan_devices({"d1": options}, facts or _facts())
    return plan


def test_a_node_is_what_the_host_has_owned_as_asked() -> None:
    found = _plan({"type": "unix-char", "path": "/dev/fuse", "uid": "5", "mode": "0600"})
    assert found.nodes == (Node("/dev/fuse", "c", 10, 229, 5, 0, 0o600),)
    assert found.rules == {"c 10:229 rwm"}


def test_source_says_which_node_and_path_where_it_lies() -> None:
    found = _plan({"type": "unix-block", "source": "/dev/loop7", "path": "/dev/../data"})
    assert found.nodes == (Node("/data", "b", 7, 7),)


def test_numbers_need_no_node_on_the_host() -> None:
    found = _plan({"type": "unix-char", "path": "/tmp/null", "major": "1", "minor": "3"})
    assert found.rules == {"c 1:3 rwm"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"type": "unix-char", "path": "/dev/nope"}, "The required device path doesn't exist and the major"),
        ({"type": "unix-char", "path": "/dev/loop7"}, "Path specified is not a unix-char device"),
        ({"type": "unix-block", "path": "/dev/fuse"}, "Path specified is not a unix-block device"),
        ({"type": "unix-char", "path": "/x", "required": "false"}, "Path needs to be in /dev"),
        ({"type": "usb", "vendorid": "ffff", "required": "true"}, "Required USB device not found"),
        (
            {"type": "unix-hotplug", "vendorid": "ffff", "required": "true"},
            "Required Unix Hotplug device",
        ),
        ({"type": "gpu", "id": "7"}, "Failed to detect requested GPU device"),
        ({"type": "gpu", "pci": "0000:0a:00.0"}, "Invalid PCI address .no device found.: 0000:0a:00.0"),
        (
            {"type": "gpu", "gputype": "mig", "mig.ci": "0", "mig.gi": "0"},
            "nvidia.runtime must be set to true",
        ),
        ({"type": "tpm", "path": "/dev/tpm0", "pathrm": "/dev/tpmrm0"}, "Required tool 'swtpm' is missing"),
        ({"type": "infiniband", "nictype": "physical", "parent": "ib0"}, "Parent device 'ib0' doesn't exist"),
    ],
)
def test_what_the_host_lacks_is_said_in_the_words_of_lxd(options: Options, words: str) -> None:
    with pytest.raises(WrongState, match=f'^Failed to start device "d1": .*{words}'):
        _plan(options)


def test_a_device_that_is_not_required_is_watched_for() -> None:
    absent = _plan({"type": "unix-char", "path": "/dev/sub/x", "required": "false"})
    assert (absent.nodes, absent.watched) == ((), ("/dev/sub/x",))
    there = _plan({"type": "unix-char", "path": "/dev/fuse", "required": "false"})
    assert len(there.nodes) == 1


def test_usb_takes_its_bus_and_hotplug_everything_else() -> None:
    assert _plan({"type": "usb"}).nodes == (Node("/dev/bus/usb/001/002", "c", 189, 1),)
    assert _plan({"type": "unix-hotplug", "vendorid": "0403"}).nodes == (Node("/dev/ttyUSB0", "c", 188, 0),)


@pytest.mark.parametrize(
    ("options", "paths"),
    [
        ({}, ["/dev/dri/card0", "/dev/dri/card1", "/dev/dri/renderD128"]),
        ({"id": "1"}, ["/dev/dri/card1"]),
        ({"pci": "01:00.0"}, ["/dev/dri/card0", "/dev/dri/renderD128"]),
        ({"vendorid": "8086"}, ["/dev/dri/card1"]),
        ({"id": "0"}, ["/dev/dri/card0", "/dev/dri/renderD128"]),
    ],
)
def test_a_card_brings_all_its_nodes(options: Options, paths: list[str]) -> None:
    assert [node.path for node in _plan({"type": "gpu", **options}).nodes] == paths


def test_two_devices_that_match_the_same_share_one_node() -> None:
    """Mounted twice, the first to go would take the other's away."""
    plans = plan_devices({"a": {"type": "usb"}, "b": {"type": "usb", "vendorid": "1d6b"}}, _facts())
    assert [plan.device for plan in plans] == ["a"]
    assert rules_of(plans) == ("c 189:1 rwm",)


def test_what_needs_no_work_has_no_plan() -> None:
    devices = {
        "root": {"type": "disk", "path": "/", "pool": "p"},
        "eth0": {"type": "nic", "network": "b"},
        "gone": {"type": "none"},
    }
    assert plan_devices(devices, _facts()) == ()


def test_a_proxy_has_an_end_on_each_side() -> None:
    options = {"type": "proxy", "listen": "unix:/run/x", "connect": "tcp:127.0.0.1:80", "bind": "instance"}
    forward = _plan({**options, "uid": "5", "mode": "0600", "security.uid": "7"}).forward
    assert forward
    assert forward.listen == End("unix", "/run/x", (), True, 5, 0, 0o600)
    assert (forward.connect.ports, forward.connect.is_inside, forward.connect.uid) == ((80,), False, 7)


def test_a_device_that_was_pulled_out_is_left_out_of_a_running_instance() -> None:
    """At a start it is missed; while the instance runs nobody can do anything about it."""
    devices = {"a": {"type": "usb", "vendorid": "ffff", "required": "true"}, "b": {"type": "usb"}}
    assert [plan.device for plan in plan_devices(devices, _facts(), kept={}, optional=devices)] == ["b"]


def test_what_cannot_be_planned_for_a_moment_stays_as_it_is() -> None:
    """A service that starts before all is ready must not take devices from running instances."""
    devices = {"a": {"type": "unix-char", "path": "/dev/fuse"}}
    had = plan_devices(devices, _facts())
    assert plan_devices(devices, FakeFacts(), kept={"a": had[0]}, optional=devices) == had


@pytest.mark.parametrize(
    ("options", "follows"),
    [
        ({"type": "usb"}, True),
        ({"type": "unix-char", "path": "/dev/x", "required": "false"}, True),
        ({"type": "unix-char", "path": "/dev/x"}, False),
        ({"type": "nic", "network": "b"}, False),
    ],
)
def test_only_what_may_come_and_go_is_followed(options: Options, follows: bool) -> None:
    assert follows_host({"d1": options}) is follows


_NAT = {"type": "proxy", "nat": "true", "listen": "tcp:192.0.2.1:80-81", "connect": "tcp:0.0.0.0:8080-8081"}


def _nic(address: str) -> Options:
    return {"type": "nic", "network": "b", "ipv4.address": address}


def test_translation_goes_to_the_fixed_address_of_a_nic() -> None:
    (plan,) = plan_devices({"p": _NAT, "eth0": _nic("10.1.1.5")}, _facts())
    assert plan.translation == Translation("tcp", "192.0.2.1", (80, 81), "10.1.1.5", (8080, 8081))


@pytest.mark.parametrize(
    ("nic", "connect", "words"),
    [
        ("", "0.0.0.0", "Instance has no static IPv4 address assigned to be used as the connect IP"),
        (
            "10.1.1.5",
            "10.1.1.6",
            'Connect IP "10.1.1.6" must be one of the instance\'s static IPv4 addresses',
        ),
    ],
)
def test_translation_to_what_others_may_have_is_refused(nic: str, connect: str, words: str) -> None:
    """Or an instance could have the traffic of another."""
    devices = {"p": {**_NAT, "connect": f"tcp:{connect}:1-2"}, "eth0": _nic(nic)}
    with pytest.raises(WrongState, match=words):
        plan_devices(devices, _facts())


def test_a_card_brings_the_nodes_of_its_driver_too() -> None:
    facts = _facts()
    facts.nodes["/dev/kfd"] = HostNode("c", 235, 0)
    card = HostDevice("drm", "1002", "73bf", "/dev/dri/card2", HostNode("c", 226, 2), "0000:03:00.0")
    facts.found = [*facts.found, card]
    found = _plan({"type": "gpu", "vendorid": "1002", "gid": "44"}, facts).nodes
    assert [(n.path, n.gid) for n in found] == [("/dev/dri/card2", 44), ("/dev/kfd", 44)]


def test_an_infiniband_card_is_an_interface_and_nodes() -> None:
    """The interface goes the way of a physical NIC, so that it is given back like one."""
    facts, options = _facts(), {"type": "infiniband", "nictype": "physical", "parent": "ib0", "mtu": "2044"}
    facts.interfaces.add("ib0")
    with pytest.raises(WrongState, match='Infiniband device "ib0" not found'):
        _plan(options, facts)
    facts.nodes["/dev/infiniband/uverbs0"] = HostNode("c", 231, 192)
    assert _plan(options, facts).rules == {"c 231:192 rwm"}
    nic = {"type": "nic", "nictype": "physical", "parent": "ib0", "mtu": "2044"}
    assert expand.nics_of({"d1": options}) == {"d1": nic}


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [((), False), (("disk", "nic", "proxy", "none"), False), (("nic", "usb"), True), (("unix-char",), True)],
)
def test_udev_is_for_instances_with_nodes_of_the_host(kinds: tuple[str, ...], expected: bool) -> None:
    assert has_nodes({kind: {"type": kind} for kind in kinds}) is expected
