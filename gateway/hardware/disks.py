"""Disks and their partitions: what a device lies behind, so no loop devices and no volumes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gateway.hardware.files import (
    Host,
    above,
    entries,
    numa,
    number,
    pci_address,
    resolved,
    target,
    text,
    usb_address,
)

Json = dict[str, Any]
_SECTOR = 512


def read(host: Host) -> Json:
    names = _links(host, "disk/by-id")
    paths = _links(host, "disk/by-path")
    found = [
        _disk(folder, names.get(folder.name, ""), paths.get(folder.name, ""))
        for folder in entries(host.sys / "class/block")
        if (folder / "device").exists() and not (folder / "partition").exists()
    ]
    return {"disks": found, "total": len(found)}


def _disk(folder: Path, by_id: str, by_path: str) -> Json:
    device = folder / "device"
    shown: Json = {
        "id": folder.name,
        "device": text(folder / "dev"),
        "device_id": by_id,
        "type": _kind(device),
        "read_only": text(folder / "ro") == "1",
        "removable": text(folder / "removable") == "1",
        "size": number(folder / "size") * _SECTOR,
        "block_size": number(folder / "queue/physical_block_size"),
        "rpm": number(folder / "queue/rotational"),
        "numa_node": next((numa(d) for d in above(device) if (d / "numa_node").exists()), 0),
        "partitions": [_partition(f) for f in entries(folder) if (f / "partition").exists()],
    }
    more = {
        "model": text(device / "model"),
        "serial": text(device / "serial") or text(folder / "serial"),
        "firmware_version": text(device / "rev") or text(device / "firmware_rev"),
        "wwn": text(folder / "wwid") or text(device / "wwid"),
        "device_path": by_path,
        "pci_address": pci_address(device),
        "usb_address": usb_address(device),
    }
    return shown | {name: value for name, value in more.items() if value}


def _kind(device: Path) -> str:
    kind = target(device / "subsystem")
    whole = str(resolved(device))
    if "/usb" in whole:
        return "usb"
    if kind == "scsi" and text(device / "vendor") == "ATA":
        return "sata"
    return kind


def _partition(folder: Path) -> Json:
    return {
        "id": folder.name,
        "device": text(folder / "dev"),
        "read_only": text(folder / "ro") == "1",
        "size": number(folder / "size") * _SECTOR,
        "partition": number(folder / "partition"),
    }


def _links(host: Host, folder: str) -> dict[str, str]:
    return {target(path): path.name for path in reversed(entries(host.dev / folder))}
