"""What only networks do: show traffic and leases."""

from __future__ import annotations

from typing import Any

from cli import tables
from cli.call import Call
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


def leases(call: Call) -> None:
    found = call.server.get(url("networks", call.words[0], "leases"))
    rows = [[lease["hostname"], lease["hwaddr"], lease["address"], lease["type"].upper()] for lease in found]
    tables.show(call.text("format"), ("HOSTNAME", "MAC ADDRESS", "IP ADDRESS", "TYPE"), rows, found)
