"""What hangs on PCI and USB, and the graphics cards among it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gateway.hardware.files import (
    PCI,
    Host,
    driver,
    entries,
    hexadecimal,
    numa,
    number,
    pci_address,
    resolved,
    target,
    text,
    usb_address,
)

Json = dict[str, Any]
_HUB, _NAMES = 9, {1: "Audio", 2: "Communications", 3: "Human Interface Device", 7: "Printer",
                   8: "Mass Storage", 10: "CDC-Data", 14: "Video", 224: "Wireless",
                   255: "Vendor Specific Class"}  # fmt: skip


def read_pci(host: Host) -> Json:
    folders = [f for f in entries(host.sys / "bus/pci/devices") if PCI.fullmatch(f.name)]
    return {"devices": [_function(host, folder) for folder in folders], "total": len(folders)}


def identity(device: Path) -> Json:
    """Return vendor and product of a device; their names are not in /sys."""
    ids = {"vendor_id": hexadecimal(device / "vendor"), "product_id": hexadecimal(device / "device")}
    return {"vendor": "", "product": "", **ids}


def _function(host: Host, folder: Path) -> Json:
    group = target(folder / "iommu_group")
    return {
        **driver(host, folder),
        **identity(folder),
        "numa_node": numa(folder),
        "pci_address": folder.name,
        "iommu_group": int(group) if group.isdecimal() else 0,
        "vpd": {},
    }


def read_gpus(host: Host) -> Json:
    found = [
        _card(host, folder)
        for folder in entries(host.sys / "class/drm")
        if folder.name.startswith("card") and folder.name[4:].isdecimal()
    ]
    return {"cards": found, "total": len(found)}


def _card(host: Host, folder: Path) -> Json:
    device = resolved(folder / "device")
    render = next((p for p in entries(device / "drm") if p.name.startswith("renderD")), None)
    drm: Json = {"id": int(folder.name[4:]), "card_name": folder.name, "card_device": text(folder / "dev")}
    if render:
        drm |= {"render_name": render.name, "render_device": text(render / "dev")}
    shown = {**driver(host, device), "numa_node": numa(device), "drm": drm, **identity(device)}
    more = {
        "pci_address": pci_address(device),
        "usb_address": usb_address(device),
        "mdev": {folder.name: _share(folder) for folder in entries(device / "mdev_supported_types")},
    }
    return shown | {name: value for name, value in more.items() if value}


def _share(folder: Path) -> Json:
    """Return a kind of virtual card that a card can be divided into, and those there are by UUID."""
    return {
        "api": text(folder / "device_api"),
        "available": number(folder / "available_instances"),
        "name": text(folder / "name"),
        "description": text(folder / "description"),
        "devices": [device.name for device in entries(folder / "devices")],
    }


def read_usb(host: Host) -> Json:
    folders = [f for f in entries(host.sys / "bus/usb/devices") if (f / "busnum").exists()]
    found = [_usb(host, f) for f in folders if int(text(f / "bDeviceClass") or "0", 16) != _HUB]
    return {"devices": found, "total": len(found)}


def _usb(host: Host, folder: Path) -> Json:
    speed = text(folder / "speed")
    return {
        "bus_address": number(folder / "busnum"),
        "device_address": number(folder / "devnum"),
        "interfaces": [_interface(host, f) for f in entries(folder) if (f / "bInterfaceNumber").exists()],
        "vendor": text(folder / "manufacturer"),
        "vendor_id": text(folder / "idVendor"),
        "product": text(folder / "product"),
        "product_id": text(folder / "idProduct"),
        "speed": float(speed) if speed.replace(".", "", 1).isdecimal() else 0,
    }


def _interface(host: Host, folder: Path) -> Json:
    kind = int(text(folder / "bInterfaceClass") or "0", 16)
    return {
        **driver(host, folder),
        "class": _NAMES.get(kind, ""),
        "class_id": kind,
        "number": int(text(folder / "bInterfaceNumber") or "0", 16),
        "subclass": "",
        "subclass_id": int(text(folder / "bInterfaceSubClass") or "0", 16),
    }
