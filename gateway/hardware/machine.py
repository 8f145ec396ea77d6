"""The machine itself, as its firmware describes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gateway.hardware.files import Host, text

Json = dict[str, Any]
_CONTAINERS = ("run/systemd/container", "run/.containerenv", ".dockerenv")


def read(host: Host) -> Json:
    folder = host.sys / "class/dmi/id"
    names = ("uuid", "family", "version", "sku", "serial")
    return {
        "vendor": text(folder / "sys_vendor"),
        "product": text(folder / "product_name"),
        **{name: text(folder / f"product_{name}") for name in names},
        "type": _kind(host),
        "firmware": _part(folder, "bios", "vendor", "date", "version"),
        "chassis": _part(folder, "chassis", "vendor", "type", "serial", "version"),
        "motherboard": _part(folder, "board", "vendor", "name", "serial", "version"),
    }


def _part(folder: Path, prefix: str, *names: str) -> Json | None:
    if not folder.exists():
        return None
    shown = {"name": "product"} if prefix == "board" else {}
    return {shown.get(name, name): text(folder / f"{prefix}_{name}") for name in names}


def _kind(host: Host) -> str:
    if any((host.root / name).exists() for name in _CONTAINERS):
        return "container"
    return "virtual-machine" if " hypervisor" in text(host.proc / "cpuinfo") else "physical"
