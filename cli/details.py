"""`podium info` and `podium version`: an instance, the server, or the machine it runs on."""

from __future__ import annotations

from typing import Any

from cli.call import Call
from cli.documents import dump, ordered
from cli.failure import Refused
from cli.server import url
from cli.tables import render
from cli.texts import binary_size, short_time, size

_SERVER = ("config", "api_extensions", "api_status", "api_version", "auth", "public", "auth_methods")


def info(call: Call) -> None:
    if call.words:
        _instance(call, call.words[0])
    elif call.on("resources"):
        print(resources_text(call.server.get(url("resources"))), end="")
    else:
        found = call.server.get("/1.0")
        print(dump(ordered(found, (*_SERVER, "environment"))), end="")


def version(call: Call) -> None:
    from cli.main import VERSION

    print(f"Client version: {VERSION}")
    try:
        print(f"Server version: {call.server.get('/1.0')['environment']['server_version']}")
    except Refused:
        raise
    except Exception as exc:
        print(f"Server version: unreachable ({exc})")


def _instance(call: Call, name: str) -> None:
    found = call.server.get(url("instances", name), recursion="1")
    print(instance_text(found), end="")
    if call.on("show-log"):
        print("\nLog:\n")
        print(_log(call, name))


def _log(call: Call, name: str) -> str:
    with call.server.stream("GET", url("instances", name, "logs", "lxc.log")) as reply:
        return reply.read().decode(errors="replace")


def instance_text(instance: dict[str, Any]) -> str:
    """Return what the stock client prints of an instance."""
    state = instance.get("state") or {}
    kind = f"{instance['type']} (ephemeral)" if instance["ephemeral"] else instance["type"]
    lines = [f"Name: {instance['name']}", f"Status: {instance['status'].upper()}", f"Type: {kind}"]
    lines += [f"Description: {instance['description']}"] if instance["description"] else []
    lines += [f"Architecture: {instance['architecture']}"]
    lines += [f"PID: {state['pid']}"] if state.get("pid") else []
    lines += [f"{label}: {at}" for label, at in _times(instance)]
    if state.get("pid") and (resources := _resources(state)):
        lines += ["", "Resources:", *resources]
    if snapshots := instance.get("snapshots"):
        lines += ["", "Snapshots:", _snapshots(snapshots).rstrip()]
    return "\n".join(lines) + "\n"


def _snapshots(snapshots: list[dict[str, Any]]) -> str:
    rows = [
        [
            s["name"],
            short_time(s["created_at"]),
            short_time(s["expires_at"]),
            "YES" if s["stateful"] else "NO",
        ]
        for s in snapshots
    ]
    return render("table", ("NAME", "TAKEN AT", "EXPIRES AT", "STATEFUL"), rows, snapshots)


def _times(instance: dict[str, Any]) -> list[tuple[str, str]]:
    found = [
        ("Created", short_time(instance["created_at"])),
        ("Last Used", short_time(instance["last_used_at"])),
    ]
    return [(label, at) for label, at in found if at]


def _resources(state: dict[str, Any]) -> list[str]:
    lines = [f"  Processes: {state['processes']}"] if state.get("processes") else []
    disks = {name: disk["usage"] for name, disk in (state.get("disk") or {}).items() if disk["usage"]}
    if disks:
        lines += ["  Disk usage:", *(f"    {name}: {binary_size(usage)}" for name, usage in disks.items())]
    if (state.get("cpu") or {}).get("usage"):
        lines += ["  CPU usage:", f"    CPU usage (in seconds): {state['cpu']['usage'] // 1_000_000_000}"]
    return lines + _memory(state.get("memory") or {}) + _networks(state.get("network") or {})


def _memory(memory: dict[str, int]) -> list[str]:
    keys = (("usage", "Memory (current)"), ("usage_peak", "Memory (peak)"))
    swap = (("swap_usage", "Swap (current)"), ("swap_usage_peak", "Swap (peak)"))
    lines = [f"    {label}: {binary_size(memory[key])}" for key, label in (*keys, *swap) if memory.get(key)]
    return ["  Memory usage:", *lines] if lines else []


def _networks(networks: dict[str, Any]) -> list[str]:
    if not networks:
        return []
    order = sorted(networks, key=lambda name: (networks[name]["type"] != "loopback", name))
    return ["  Network usage:", *(line for name in order for line in _network(name, networks[name]))]


def _network(name: str, network: dict[str, Any]) -> list[str]:
    lines = [f"    {name}:", f"      Type: {network['type']}", f"      State: {network['state'].upper()}"]
    lines += [f"      Host interface: {network['host_name']}"] if network["host_name"] else []
    lines += [f"      MAC address: {network['hwaddr']}"] if network["hwaddr"] else []
    lines += [f"      MTU: {network['mtu']}"] if network["mtu"] else []
    counters = network["counters"]
    lines += [f"      Bytes received: {size(counters['bytes_received'])}"]
    lines += [f"      Bytes sent: {size(counters['bytes_sent'])}"]
    lines += [f"      Packets received: {counters['packets_received']}"]
    lines += [f"      Packets sent: {counters['packets_sent']}", "      IP addresses:"]
    for a in network["addresses"]:
        lines.append(f"        {a['family'] + ':':6} {a['address']}/{a['netmask']} ({a['scope']})")
    return lines


def resources_text(found: dict[str, Any]) -> str:
    """Return CPU and memory of the machine, and its disks and cards where the server tells them."""
    cpu, memory = found["cpu"], found["memory"]
    sockets = cpu["sockets"] or []
    lines = [f"CPU{'s' if len(sockets) > 1 else ''} ({cpu['architecture']}):"]
    for socket in sockets:
        several = len(sockets) > 1
        lines += [f"  Socket {socket['socket']}:"] if several else []
        lines += [("    " if several else "  ") + line for line in _socket(socket)]
    free = memory["total"] - memory["used"]
    lines += ["", "Memory:", f"  Free: {binary_size(free)}", f"  Used: {binary_size(memory['used'])}"]
    lines += [f"  Total: {binary_size(memory['total'])}"]
    for title, section, key in (("Disks", "storage", "disks"), ("Network cards", "network", "cards")):
        items = (found.get(section) or {}).get(key) or []
        if items:
            lines += ["", f"{title}:", *(f"  {item.get('id') or item.get('product', '')}" for item in items)]
    return "\n".join(lines) + "\n"


def _socket(socket: dict[str, Any]) -> list[str]:
    lines = [f"{key.capitalize()}: {socket[key]}" for key in ("vendor", "name") if socket.get(key)]
    caches = socket.get("cache") or []
    lines += ["Caches:"]
    lines += [
        f"  - Level {c['level']} (type: {c['type']}): {binary_size(c['size'], digits=0)}" for c in caches
    ]
    lines += ["Cores:"]
    for core in socket["cores"] or []:
        lines += [f"  - Core {core['core']}", f"    Frequency: {core.get('frequency', 0)}Mhz", "    Threads:"]
        lines += [f"      - {_thread(thread)}" for thread in core["threads"] or []]
    return lines


def _thread(thread: dict[str, Any]) -> str:
    online = "true" if thread["online"] else "false"
    return f"{thread['thread']} (id: {thread['id']}, online: {online}, NUMA node: {thread['numa_node']})"
