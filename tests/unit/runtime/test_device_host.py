"""What the host tells of devices, and what is noted of those that are plugged; without any hardware."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.runtime.devices.events import is_of_device
from services.runtime.devices.facts import HostFacts
from services.runtime.devices.ledger import Ledger
from services.runtime.devices.rules import DeviceRules
from services.runtime.domain.devices.plan import Bind, DevicePlan, End, Forward, Node
from services.runtime.kernel import uevents

_USB = "devices/pci0000:00/0000:00:14.0/usb1/1-1"


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _device(root: Path, folder: str, number: str, subsystem: str, node: str) -> None:
    """Make a device as the kernel shows one: its folder, its number, its subsystem and its node."""
    sys = root / "sys"
    _write(sys / folder / "uevent", f"MAJOR={number.split(':')[0]}\nDEVNAME={node}\n")
    (sys / "bus" / subsystem).mkdir(parents=True, exist_ok=True)
    (sys / folder / "subsystem").symlink_to(sys / "bus" / subsystem)
    (sys / "dev" / "char").mkdir(parents=True, exist_ok=True)
    (sys / "dev" / "char" / number).symlink_to(sys / folder)
    _write(root / "dev" / node, "")


@pytest.fixture
def facts(tmp_path: Path) -> HostFacts:
    sys = tmp_path / "sys"
    _write(sys / _USB / "idVendor", "0403\n")
    _write(sys / _USB / "idProduct", "6001\n")
    _device(tmp_path, _USB, "189:1", "usb", "bus/usb/001/002")
    _device(tmp_path, f"{_USB}/1-1:1.0/ttyUSB0/tty/ttyUSB0", "188:0", "tty", "ttyUSB0")
    card = "devices/pci0000:00/0000:00:02.0"
    _write(sys / card / "vendor", "0x8086\n")
    _write(sys / card / "device", "0x1912\n")
    (sys / "bus" / "pci").mkdir(parents=True)
    (sys / card / "subsystem").symlink_to(sys / "bus" / "pci")
    _device(tmp_path, f"{card}/drm/card0", "226:0", "drm", "dri/card0")
    _device(tmp_path, "devices/virtual/mem/null", "1:3", "mem", "null")
    return HostFacts(sys, tmp_path / "dev")


@pytest.mark.parametrize(
    ("told", "is_one"),
    [
        (b"add@/devices/usb1/1-1\0ACTION=add\0SUBSYSTEM=usb\0DEVNAME=bus/usb/001/002\0", True),
        (b"remove@/devices/usb1/1-1/tty/ttyUSB0\0ACTION=remove\0DEVNAME=ttyUSB0\0", True),
        (b"change@/devices/virtual/block/loop0\0ACTION=change\0DEVNAME=loop0\0", False),
        (b"add@/devices/virtual/net/veth1\0ACTION=add\0SUBSYSTEM=net\0INTERFACE=veth1\0", False),
        (b"add@/devices/virtual/net/veth1/queues/rx-0\0ACTION=add\0SUBSYSTEM=queues\0", False),
        (b"add@/devices/virtual/bdi/0:99\0ACTION=add\0SUBSYSTEM=bdi\0", False),
    ],
)
def test_only_what_has_a_node_is_a_reason_to_look_at_all_instances(told: bytes, is_one: bool) -> None:
    """Each start of an instance makes interfaces and mounts, of which the kernel tells in the same place."""
    assert is_of_device(told) is is_one


def test_devices_have_the_ids_of_what_they_belong_to(facts: HostFacts) -> None:
    """A serial port has those of its USB adapter; what has no maker cannot be asked for by one."""
    found = {
        d.path.rpartition("/dev/")[2]: (d.subsystem, d.vendor, d.product, d.pci) for d in facts.devices()
    }
    assert found == {
        "bus/usb/001/002": ("usb", "0403", "6001", ""),
        "ttyUSB0": ("tty", "0403", "6001", ""),
        "dri/card0": ("drm", "8086", "1912", "0000:00:02.0"),
    }


def test_what_is_no_device_node_is_none(facts: HostFacts, tmp_path: Path) -> None:
    found = facts.node("/dev/null")
    assert found and (found.kind, found.major, found.minor) == ("c", 1, 3)
    assert facts.node("/dev/none-such") is None
    assert facts.node("/dev/\0") is None


_PLANS = (
    DevicePlan("a/b", (Node("/dev/x", "c", 1, 3, 5, 6, 0o600),), watched=("/dev/x",)),
    DevicePlan("c.d", binds=(Bind("/srv", "/mnt", read_only=True),)),
    DevicePlan("p", forward=Forward(End("tcp", "::1", (80, 81)), End("unix", "/x", is_inside=True))),
)


def test_what_is_plugged_is_found_again_as_it_was_planned(tmp_path: Path) -> None:
    """A plan that read back differently would be unplugged and plugged at each look."""
    ledger = Ledger(tmp_path / "devices")
    for plan in _PLANS:
        ledger.begin(plan)
    assert ledger.whole() == {}
    assert ledger.half() == {plan.device: plan for plan in _PLANS}
    for plan in _PLANS:
        ledger.done(plan.device)
    assert Ledger(tmp_path / "devices").whole() == {plan.device: plan for plan in _PLANS}
    ledger.forget("a/b")
    assert set(ledger.whole()) == {"c.d", "p"}


def test_a_note_that_was_cut_off_still_names_its_device(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "devices")
    (ledger.begin(_PLANS[0]) / "begun").write_bytes(b'{"dev')
    assert ledger.half() == {"a/b": DevicePlan("a/b")}


def test_cgroups_inside_get_what_the_instance_gets(tmp_path: Path) -> None:
    """They had what it had when they were made; and what every instance may open nobody takes away."""
    inner = tmp_path / "devices" / "podium" / "i1" / "system.slice"
    inner.mkdir(parents=True)
    rules = DeviceRules(tmp_path / "instances", tmp_path)
    rules.allow("i1", "b 7:7 rwm")
    for folder in (inner, inner.parent):
        assert (folder / "devices.allow").read_text() == "b 7:7 rwm"
    rules.deny("i1", "c 10:229 rwm")
    assert not (inner / "devices.deny").exists()
    rules.deny("i1", "b 7:7 rwm")
    assert (inner / "devices.deny").read_text() == "b 7:7 rwm"


def test_a_guest_is_told_of_a_device_in_the_words_of_the_kernel(facts: HostFacts, tmp_path: Path) -> None:
    found = uevents.describe("c", 188, 0, sys=tmp_path / "sys")
    path = f"/{_USB}/1-1:1.0/ttyUSB0/tty/ttyUSB0"
    assert found == {"DEVPATH": path, "SUBSYSTEM": "tty", "MAJOR": "188", "DEVNAME": "ttyUSB0"}
    said = uevents.message("add", found).split(b"\0")
    assert said[:2] == [f"add@{path}".encode(), b"ACTION=add"]
    assert uevents.describe("c", 7, 7, sys=tmp_path / "sys") == {}


def test_what_a_guest_was_told_is_known_until_the_device_is_taken_out(tmp_path: Path) -> None:
    """The host knows a device that was pulled out no more."""
    ledger = Ledger(tmp_path)
    ledger.begin(DevicePlan("a", announced=True))
    ledger.tell("a", [{"DEVPATH": "/devices/x"}])
    ledger.done("a")
    assert ledger.told("a") == [{"DEVPATH": "/devices/x"}]
    ledger.forget("a")
    assert ledger.told("a") == []
    assert DevicePlan("a", announced=True) == DevicePlan("a"), "one plugged by an older version stays plugged"
