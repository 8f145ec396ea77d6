"""Network cards: interfaces that a device lies behind, so no bridges and no virtual ones."""

from __future__ import annotations

import array
import fcntl
import socket
import struct
from collections import defaultdict
from pathlib import Path
from typing import Any

from gateway.hardware.buses import identity
from gateway.hardware.files import Host, above, driver, entries, numa, number, pci_address, resolved, text

Json = dict[str, Any]
_SIOCETHTOOL, _ETHTOOL_GSET = 0x8946, 1
# struct ethtool_cmd of linux/ethtool.h
_CMD = struct.Struct("=IIIHBBBBBBIIHBBI2I")
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
    if address := pci_address(device):
        shown["pci_address"] = address
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
    speed, duplex = number(folder / "speed", -1), text(folder / "duplex")
    if shown["link_detected"] and speed > 0:
        shown |= {"link_speed": speed, "link_duplex": duplex}
    return shown


def _link(name: str) -> Json:
    """Return what the driver says of the plug; nothing where it says nothing."""
    command = array.array("B", _CMD.pack(_ETHTOOL_GSET, *([0] * 17)))
    request = struct.pack("16sP", name.encode(), command.buffer_info()[0])
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            fcntl.ioctl(any_socket, _SIOCETHTOOL, request)
    except OSError:
        return {}
    _, _, _, _, _, port, _, transceiver, negotiates, *_ = _CMD.unpack(command.tobytes())
    return {
        "auto_negotiation": negotiates == 1,
        "port_type": _PORTS.get(port, "other"),
        "transceiver_type": "external" if transceiver == 1 else "internal",
    }
