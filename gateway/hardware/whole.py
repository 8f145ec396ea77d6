"""All of it, as LXD's /1.0/resources shows it."""

from __future__ import annotations

from typing import Any

from gateway.hardware import buses, cards, disks, machine, memory, processors
from gateway.hardware.files import Host


def read(host: Host) -> dict[str, Any]:
    return {
        "cpu": processors.read(host),
        "memory": memory.read(host),
        "gpu": buses.read_gpus(host),
        "network": cards.read(host),
        "storage": disks.read(host),
        "usb": buses.read_usb(host),
        "pci": buses.read_pci(host),
        "system": machine.read(host),
    }
