"""What small files and links of /sys say; what is not there says nothing."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PCI = re.compile(r"[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-9a-f]")


@dataclass(frozen=True)
class Host:
    """Where the kernel shows itself; tests have trees of their own."""

    sys: Path = Path("/sys")
    proc: Path = Path("/proc")
    dev: Path = Path("/dev")
    root: Path = Path("/")


def text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def number(path: Path, default: int = 0) -> int:
    try:
        return int(text(path), 0)
    except ValueError:
        return default


def target(path: Path) -> str:
    """Return the last part of what a link leads to."""
    try:
        return os.readlink(path).rpartition("/")[2]
    except OSError:
        return ""


def entries(folder: Path) -> list[Path]:
    """Return what a folder holds, by name, numbers as numbers."""
    try:
        return sorted(folder.iterdir(), key=_by_number)
    except OSError:
        return []


def _by_number(path: Path) -> list[tuple[int, str]]:
    return [(int(part) if part.isdecimal() else -1, part) for part in re.findall(r"\d+|\D+", path.name)]


def fields(path: Path) -> dict[str, str]:
    """Return the lines "name: value" of a file."""
    pairs = (line.partition(":") for line in text(path).splitlines() if ":" in line)
    return {name.strip(): value.strip() for name, _, value in pairs}


def hexadecimal(path: Path) -> str:
    """Return an id such as 0x8086 without what says that it is hexadecimal."""
    return text(path).removeprefix("0x")


def numa(device: Path) -> int:
    """Return the node a device is near; that is the first where the kernel does not know."""
    return max(number(device / "numa_node"), 0)


def driver(host: Host, device: Path) -> dict[str, str]:
    name = target(device / "driver")
    version = text(host.sys / "module" / name.replace("-", "_") / "version") if name else ""
    return {"driver": name, "driver_version": version or (os.uname().release if name else "")}


def pci_address(device: Path) -> str:
    """Return the PCI function that a device is or lies behind."""
    found = PCI.findall(str(resolved(device)))
    return found[-1] if found else ""


def usb_address(device: Path) -> str:
    """Return bus and number of the USB device that a device is or lies behind."""
    for folder in above(device):
        if (folder / "busnum").exists():
            return f"{number(folder / 'busnum')}:{number(folder / 'devnum')}"
    return ""


def above(device: Path) -> Iterator[Path]:
    """Yield a device and those it lies behind."""
    whole = resolved(device)
    yield whole
    yield from whole.parents


def resolved(path: Path) -> Path:
    try:
        return path.resolve()
    except OSError:
        return path
