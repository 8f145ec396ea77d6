"""Network cards: interfaces that a device lies behind, so no bridges and no virtual ones."""

from __future__ import annotations

import array
import fcntl
import socket
import struct
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from gateway.hardware.buses import identity
from gateway.hardware.files import (
    Host,
    above,
    driver,
    entries,
    numa,
    number,
    pci_address,
    resolved,
    text,
    usb_address,
)

Json = dict[str, Any]
_SIOCETHTOOL, _ETHTOOL_GSET, _ETHTOOL_GDRVINFO = 0x8946, 1, 3
# struct ethtool_cmd and struct ethtool_drvinfo of linux/ethtool.h
_CMD = struct.Struct("=IIIHBBBBBBIIHBBI2I")
_DRIVER = struct.Struct("=I32s32s32s32s32s12s5I")
_PROTOCOLS = {1: "ethernet", 32: "infiniband", 19: "802.3"}
_PORTS = {0: "twisted pair", 1: "AUI", 2: "media-independent interface", 3: "fibre", 4: "BNC",
          5: "direct attach", 0xEF: "none", 0xFF: "other"}  # fmt: skip


def read(host: Host) -> Json:
    by_device: dict[Path, list[Path]] = defaultdict(list)
    for folder in entries(host.sys / "class/net"):
        if (folder / "device").exists():
            by_device[resolved(folder / "device")].append(folder)
    found = [_card(host, device, ports) for device, ports in by_device.items()]
    return {"cards": found, "total": len(found)}


def _card(host: Host, device: Path, ports: list[Path]) -> Json:
    ids = {name: value for name, value in identity(device).items() if value}
    shown: Json = {
        **driver(host, device),
        **ids,
        "numa_node": next((numa(d) for d in above(device) if (d / "numa_node").exists()), 0),
        "ports": [_port(folder) for folder in ports],
    }
    more = {
        "pci_address": pci_address(device),
        "usb_address": usb_address(device),
        "firmware_version": next(filter(None, (firmware(folder.name) for folder in ports)), ""),
    }
    shown |= {name: value for name, value in more.items() if value}
    if most := number(device / "sriov_totalvfs"):
        current = number(device / "sriov_numvfs")
        shown["sriov"] = {"current_vfs": current, "maximum_vfs": most, "vfs": []}
    return shown


def _port(folder: Path) -> Json:
    shown: Json = {
        "id": folder.name,
        "address": text(folder / "address"),
        "port": number(folder / "dev_port"),
        "protocol": _PROTOCOLS.get(number(folder / "type"), "unknown"),
        "link_detected": text(folder / "carrier") == "1",
        "auto_negotiation": False,
        **_link(folder.name),
    }
    if shown["protocol"] == "infiniband":
        shown["infiniband"] = _nodes(folder / "device", shown["port"] + 1)
    speed, duplex = number(folder / "speed", -1), text(folder / "duplex")
    if shown["link_detected"] and speed > 0:
        shown |= {"link_speed": speed, "link_duplex": duplex}
    return shown


def _nodes(device: Path, port: int) -> dict[str, str]:
    """Return names and numbers of a port's character devices; the kernel counts ports from 1 there."""
    mad = [f for f in entries(device / "infiniband_mad") if number(f / "port") == port]
    found = {
        "issm": next((f for f in mad if f.name.startswith("issm")), None),
        "mad": next((f for f in mad if f.name.startswith("umad")), None),
        "verb": next(iter(entries(device / "infiniband_verbs")), None),
    }
    there = {kind: folder for kind, folder in found.items() if folder}
    return {f"{kind}_name": folder.name for kind, folder in there.items()} | {
        f"{kind}_device": text(folder / "dev") for kind, folder in there.items()
    }


def firmware(name: str) -> str:
    """Return the firmware's version of a card by one of its ports; empty where the driver knows none."""
    told = _ethtool(name, _ETHTOOL_GDRVINFO.to_bytes(4, sys.byteorder).ljust(_DRIVER.size, b"\0"))
    version = _DRIVER.unpack(told)[3].partition(b"\0")[0].decode(errors="replace").strip() if told else ""
    return "" if version == "N/A" else version


def _link(name: str) -> Json:
    """Return what the driver says of the plug; nothing where it says nothing."""
    told = _ethtool(name, _CMD.pack(_ETHTOOL_GSET, *([0] * 17)))
    if not told:
        return {}
    _, _, _, _, _, port, _, transceiver, negotiates, *_ = _CMD.unpack(told)
    return {
        "auto_negotiation": negotiates == 1,
        "port_type": _PORTS.get(port, "other"),
        "transceiver_type": "external" if transceiver == 1 else "internal",
    }


def _ethtool(name: str, question: bytes) -> bytes:
    """Return the structure that the driver filled in; nothing when it refuses."""
    command = array.array("B", question)
    request = struct.pack("16sP", name.encode(), command.buffer_info()[0])
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            fcntl.ioctl(any_socket, _SIOCETHTOOL, request)
    except OSError:
        return b""
    return command.tobytes()
