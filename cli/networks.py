"""What only networks do: show traffic and leases."""

from __future__ import annotations

from typing import Any

from cli import tables
from cli.call import Call
from cli.failure import Refused
from cli.kinds import KINDS, update
from cli.server import url
from cli.texts import size


def info(call: Call) -> None:
    name = call.words[0]
    print(describe(name, call.server.get(url("networks", name, "state"))), end="")


def describe(name: str, state: dict[str, Any]) -> str:
    """Return what the stock client prints of a network's state."""
    lines = [f"Name: {name}", f"MAC address: {state['hwaddr']}", f"MTU: {state['mtu']}"]
    lines += [f"State: {state['state']}", f"Type: {state['type']}"]
    if state["addresses"]:
        lines += ["", "IP addresses:"]
        lines += [
            f"  {a['family']}\t{a['address']}/{a['netmask']} ({a['scope']})" for a in state["addresses"]
        ]
    if counters := state.get("counters"):
        lines += ["", "Network usage:"]
        lines += [f"  Bytes received: {size(counters['bytes_received'])}"]
        lines += [f"  Bytes sent: {size(counters['bytes_sent'])}"]
        lines += [f"  Packets received: {counters['packets_received']}"]
        lines += [f"  Packets sent: {counters['packets_sent']}"]
    if bridge := state.get("bridge"):
        lines += ["", "Bridge:", f"  ID: {bridge['id']}", f"  STP: {_flag(bridge['stp'])}"]
        lines += [
            f"  Forward delay: {bridge['forward_delay']}",
            f"  Default VLAN ID: {bridge['vlan_default']}",
        ]
        lines += [f"  VLAN filtering: {_flag(bridge['vlan_filtering'])}"]
        lines += [f"  Upper devices: {', '.join(bridge['upper_devices'] or [])}"]
    return "\n".join(lines) + "\n"


def _flag(value: bool) -> str:
    return "true" if value else "false"


def attach(call: Call) -> None:
    """Add a NIC on this network to an instance; the device is named after the network unless told."""
    network, instance, *names = call.words
    device = names[0] if names else network
    nic = {"type": "nic", "network": network, "name": names[1] if len(names) > 1 else device}
    if not call.server.get(url("networks", network))["managed"]:
        nic = {"type": "nic", "nictype": "macvlan", "parent": network, "name": nic["name"]}

    def change(body: dict[str, Any]) -> None:
        if device in body["devices"]:
            raise Refused(400, f"The device already exists: {device}")
        body["devices"][device] = nic

    update(call.server, KINDS["instance"], instance, change)


def detach(call: Call) -> None:
    """Take the NIC on this network from an instance."""
    network, instance, *names = call.words

    def change(body: dict[str, Any]) -> None:
        found = names or [
            key for key, d in body["devices"].items() if network in (d.get("network"), d.get("parent"))
        ]
        if len(found) != 1 or found[0] not in body["devices"]:
            raise Refused(
                400, f"Device doesn't exist: {instance} has {len(found)} NICs of its own on {network}"
            )
        del body["devices"][found[0]]

    update(call.server, KINDS["instance"], instance, change)


def leases(call: Call) -> None:
    found = call.server.get(url("networks", call.words[0], "leases"))
    rows = [[lease["hostname"], lease["hwaddr"], lease["address"], lease["type"].upper()] for lease in found]
    tables.show(call.text("format"), ("HOSTNAME", "MAC ADDRESS", "IP ADDRESS", "TYPE"), rows, found)
