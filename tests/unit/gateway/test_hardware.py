"""Hardware that this machine lacks, as /sys of others shows it."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.hardware import buses, cards, disks, machine, memory, processors, whole
from gateway.hardware.files import Host

_GPU = "devices/pci0000:00/0000:00:02.0"


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path / "sys", tmp_path / "proc", tmp_path / "dev", tmp_path)


def lay(folder: Path, **files: str) -> Path:
    """Make small files; "__" in a name is a folder."""
    for name, content in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")
    return folder


def link(path: Path, to: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    to.mkdir(parents=True, exist_ok=True)
    path.symlink_to(to)


def test_nothing_is_an_answer_too(host: Host) -> None:
    """A kernel without any of it must not make the request fail."""
    found = whole.read(host)
    assert found["cpu"]["total"] == 0 and found["storage"] == {"disks": [], "total": 0}
    assert found["memory"]["nodes"][0]["total"] == 0 and found["system"]["firmware"] is None


def test_threads_of_a_core_are_told_from_cores(host: Host) -> None:
    lay(host.proc, cpuinfo="processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel name\t: EPYC\n\nprocessor\t: 1")
    for n, core in enumerate((0, 1, 0, 1)):
        cpu = lay(
            host.sys / f"devices/system/cpu/cpu{n}",
            topology__core_id=str(core), topology__physical_package_id="0", topology__die_id="0",
            cpufreq__scaling_cur_freq="2400000", cpufreq__cpuinfo_max_freq="3500000",
        )  # fmt: skip
        (cpu / "node0").mkdir()
        lay(cpu / "cache/index0", level="1", type="Data", size="32K")
    lay(host.sys / "devices/system/cpu", isolated="2-3")

    found = processors.read(host)

    [socket] = found["sockets"]
    assert (found["total"], socket["name"], socket["vendor"]) == (4, "EPYC", "AuthenticAMD")
    assert [[t["id"] for t in core["threads"]] for core in socket["cores"]] == [[0, 2], [1, 3]]
    assert [t["isolated"] for t in socket["cores"][0]["threads"]] == [False, True]
    assert (socket["frequency"], socket["frequency_turbo"]) == (2400, 3500)
    assert socket["cache"] == [{"level": 1, "type": "Data", "size": 32768}]


def test_memory_is_told_by_node(host: Host) -> None:
    pages = "Hugepagesize: 2048 kB\nHugePages_Total: 2\nHugePages_Free: 1"
    lay(host.proc, meminfo=f"MemTotal: 100 kB\nMemAvailable: 40 kB\n{pages}")
    lay(host.sys / "devices/system/node/node1", meminfo="Node 1 MemTotal: 50 kB\nNode 1 MemFree: 10 kB")
    found = memory.read(host)
    assert (found["total"], found["used"]) == (102400, 61440)
    assert (found["hugepages_total"], found["hugepages_used"]) == (4 << 20, 2 << 20)
    assert [(n["numa_node"], n["total"], n["used"]) for n in found["nodes"]] == [(1, 51200, 40960)]


def test_a_disk_is_told_with_its_partitions_and_a_loop_is_none(host: Host) -> None:
    device = lay(host.sys / "devices/pci0000:00/0000:00:1f.2/ata1/host0/target0", vendor="ATA", model="SSD 1")
    link(device / "subsystem", host.sys / "bus/scsi")
    disk = lay(host.sys / "class/block/sda", dev="8:0", size="2048", ro="0", removable="1",
               queue__physical_block_size="4096")  # fmt: skip
    link(disk / "device", device)
    lay(disk / "sda1", partition="1", dev="8:1", size="1024", ro="1")
    lay(host.sys / "class/block/loop0", dev="7:0", size="1")
    found = disks.read(host)
    [shown] = found["disks"]
    assert (shown["id"], shown["type"], shown["size"], shown["model"]) == ("sda", "sata", 1 << 20, "SSD 1")
    assert shown["pci_address"] == "0000:00:1f.2" and shown["removable"] and not shown["read_only"]
    assert shown["partitions"] == [
        {"id": "sda1", "device": "8:1", "read_only": True, "size": 524288, "partition": 1}
    ]


def test_a_graphics_card_names_its_nodes(host: Host) -> None:
    device = lay(host.sys / _GPU, vendor="0x8086", device="0x9bc4", drm__renderD128__dev="226:128")
    link(device / "driver", host.sys / "bus/pci/drivers/i915")
    card = lay(host.sys / "class/drm/card0", dev="226:0")
    link(card / "device", device)
    [shown] = buses.read_gpus(host)["cards"]
    assert (shown["driver"], shown["vendor_id"], shown["product_id"]) == ("i915", "8086", "9bc4")
    assert shown["drm"]["render_device"] == "226:128" and shown["pci_address"] == "0000:00:02.0"


def test_usb_devices_are_told_and_hubs_are_not(host: Host) -> None:
    folder = host.sys / "bus/usb/devices"
    lay(folder / "usb1", busnum="1", devnum="1", bDeviceClass="09")
    stick = lay(folder / "1-1", busnum="1", devnum="5", bDeviceClass="00", idVendor="0951", idProduct="1666",
                product="Stick", manufacturer="K", speed="480")  # fmt: skip
    lay(stick / "1-1:1.0", bInterfaceNumber="00", bInterfaceClass="08", bInterfaceSubClass="06")
    [shown] = buses.read_usb(host)["devices"]
    assert (shown["bus_address"], shown["device_address"], shown["vendor_id"]) == (1, 5, "0951")
    assert shown["interfaces"][0]["class"] == "Mass Storage" and shown["speed"] == 480


def test_ports_of_a_card_are_told_together_and_bridges_are_none(host: Host) -> None:
    device = lay(host.sys / "devices/pci0000:00/0000:00:03.0", vendor="0x8086", device="0x10fb",
                 sriov_totalvfs="63", sriov_numvfs="4")  # fmt: skip
    for n in range(2):
        folder = host.sys / f"class/net/no-such{n}"
        port = lay(folder, type="1", dev_port=str(n), carrier="1", speed="10000", duplex="full")
        link(port / "device", device)
    lay(host.sys / "class/net/br0", address="x")
    [card] = cards.read(host)["cards"]
    assert [p["port"] for p in card["ports"]] == [0, 1]
    assert card["ports"][0]["link_speed"] == 10000 and card["sriov"]["current_vfs"] == 4


def test_cards_on_usb_name_their_place_there(host: Host) -> None:
    stick = lay(host.sys / "devices/pci0000:00/0000:00:14.0/usb1/1-2", busnum="1", devnum="7")
    link(lay(host.sys / "class/net/no-such0", type="1") / "device", stick / "1-2:1.0")
    link(lay(host.sys / "class/drm/card1", dev="226:1") / "device", stick / "1-2:1.1")
    [network], [graphics] = cards.read(host)["cards"], buses.read_gpus(host)["cards"]
    assert network["usb_address"] == graphics["usb_address"] == "1:7"
    assert network["pci_address"] == "0000:00:14.0"


def test_ports_of_infiniband_name_their_nodes(host: Host) -> None:
    device = lay(host.sys / "devices/pci0000:00/0000:00:05.0", infiniband_verbs__uverbs0__dev="231:192")
    for n, name in enumerate(("issm0", "issm1", "umad0", "umad1")):
        lay(device / "infiniband_mad" / name, port=str(n % 2 + 1), dev=f"231:{n}")
    link(lay(host.sys / "class/net/no-such0", type="32", dev_port="1") / "device", device)
    [card] = cards.read(host)["cards"]
    nodes = card["ports"][0]["infiniband"]
    assert (nodes["issm_name"], nodes["issm_device"], nodes["mad_name"]) == ("issm1", "231:1", "umad1")
    assert nodes["verb_name"] == "uverbs0" and nodes["verb_device"] == "231:192"


def test_a_graphics_card_tells_how_it_can_be_divided(host: Host) -> None:
    kind = host.sys / _GPU / "mdev_supported_types/i915-GVTg_V5_4"
    lay(kind, device_api="vfio-pci", available_instances="2", devices__some_uuid="")
    link(lay(host.sys / "class/drm/card0", dev="226:0") / "device", host.sys / _GPU)
    [card] = buses.read_gpus(host)["cards"]
    assert card["mdev"] == {
        "i915-GVTg_V5_4": {
            "api": "vfio-pci", "available": 2, "name": "", "description": "", "devices": ["some_uuid"],
        }
    }  # fmt: skip


def test_a_driver_that_knows_no_firmware_tells_none() -> None:
    assert not cards.firmware("lo") and not cards.firmware("no-such0")


def test_the_machine_is_what_its_firmware_says(host: Host) -> None:
    lay(host.sys / "class/dmi/id", sys_vendor="ACME", product_name="Box", board_name="B1", bios_date="2026")
    lay(host.proc, cpuinfo="flags : fpu hypervisor")
    found = machine.read(host)
    assert (found["vendor"], found["product"], found["type"]) == ("ACME", "Box", "virtual-machine")
    assert found["motherboard"]["product"] == "B1" and found["firmware"]["date"] == "2026"
