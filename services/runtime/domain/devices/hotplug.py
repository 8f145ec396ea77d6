"""usb, unix-hotplug and gpu: devices of the host by what they are, whichever are there now."""

from __future__ import annotations

from core.configkeys.devices.unix import is_required
from services.runtime.domain.devices.plan import DevicePlan, Facts, HostDevice, Node, Options, cannot_start
from services.runtime.domain.devices.unix import node


def plan_usb(device: str, options: Options, facts: Facts) -> DevicePlan:
    return _plan(device, options, facts, is_usb=True, missing="Required USB device not found")


def plan_hotplug(device: str, options: Options, facts: Facts) -> DevicePlan:
    return _plan(device, options, facts, is_usb=False, missing="Required Unix Hotplug device not found")


def _plan(device: str, options: Options, facts: Facts, *, is_usb: bool, missing: str) -> DevicePlan:
    found = [d for d in facts.devices() if (d.subsystem == "usb") == is_usb and _fits(d, options)]
    if not found and is_required(options, default="false"):
        raise cannot_start(device, missing)
    return DevicePlan(device, _in_order(_nodes(found, options)), announced=True)


def plan_gpu(device: str, options: Options, facts: Facts) -> DevicePlan:
    """A card has several nodes, among them some of all cards; a card that is not there is an error."""
    if options.get("gputype") == "mig":
        raise cannot_start(device, "nvidia.runtime must be set to true for MIG GPUs to work")
    cards = [d for d in facts.devices() if d.subsystem == "drm"]
    if (address := options.get("pci")) and not any(d.pci == _full(address) for d in facts.devices()):
        raise cannot_start(device, f"Invalid PCI address (no device found): {address}")
    wanted = [d for d in cards if _fits(d, options) and _is_named(d, options)]
    # Nodes of the same card (card0, renderD128) share its address.
    pcis = {d.pci for d in wanted}
    found = [d for d in cards if d in wanted or (d.pci and d.pci in pcis)]
    if not found:
        raise cannot_start(device, "Failed to detect requested GPU device")
    of_drivers = {path for card in found for path in facts.card_nodes(card)}
    nodes = [node(path, n.kind, n, options) for path in of_drivers if (n := facts.node(path))]
    return DevicePlan(device, _in_order([*nodes, *_nodes(found, options)]))


def _nodes(found: list[HostDevice], options: Options) -> list[Node]:
    return [node(d.path, d.node.kind, d.node, options) for d in found]


def _in_order(nodes: list[Node]) -> tuple[Node, ...]:
    return tuple(sorted(nodes, key=lambda n: n.path))


def _fits(found: HostDevice, options: Options) -> bool:
    pairs = (("vendorid", found.vendor), ("productid", found.product))
    return all(options.get(name) in (None, "", value) for name, value in pairs)


def _is_named(found: HostDevice, options: Options) -> bool:
    if address := options.get("pci"):
        return found.pci == _full(address)
    if id := options.get("id"):
        return found.path.endswith(f"/card{id}")
    return True


def _full(address: str) -> str:
    """Return a PCI address with its domain, as the kernel writes it."""
    return (address if address.count(":") == 2 else f"0000:{address}").lower()
