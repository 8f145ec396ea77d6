"""`podium network load-balancer`, which the stock client of LXD 5.0 does not have; and address sets."""

from __future__ import annotations

from typing import Any

from cli import tables
from cli.call import Call
from cli.documents import dump
from cli.failure import Refused
from cli.server import url

_SETS = "network-address-sets"


def listing(call: Call) -> None:
    found = call.server.get(url("networks", call.words[0], "load-balancers"), recursion="1")
    rows = [
        [b["listen_address"], b["description"], str(len(b["backends"])), str(len(b["ports"]))] for b in found
    ]
    tables.show(call.text("format"), ("LISTEN ADDRESS", "DESCRIPTION", "BACKENDS", "PORTS"), rows, found)


def show(call: Call) -> None:
    print(dump(call.server.get(_place(call))), end="")


def info(call: Call) -> None:
    """Which backends answer."""
    print(dump(call.server.get(_place(call) + "/state")), end="")


def create(call: Call) -> None:
    network, address, *pairs = call.words
    body = {"listen_address": address, "config": call.pairs(pairs)}
    call.server.send("POST", url("networks", network, "load-balancers"), body)
    call.say(f"Network load balancer {address} created")


def delete(call: Call) -> None:
    call.server.send("DELETE", _place(call))
    call.say(f"Network load balancer {call.words[1]} deleted")


def set_keys(call: Call) -> None:
    wanted = call.assignments(call.words[2:])
    _change(call, lambda body: body["config"].update(wanted))


def add_backend(call: Call) -> None:
    _, _, name, address, *port = call.words
    backend = {"name": name, "target_address": address, "target_port": port[0] if port else ""}
    _change(call, lambda body: body["backends"].append(backend))


def remove_backend(call: Call) -> None:
    _change(call, lambda body: _remove(body["backends"], lambda b: b["name"] == call.words[2]))


def add_port(call: Call) -> None:
    _, _, protocol, ports, backends = call.words
    port = {"protocol": protocol, "listen_port": ports, "target_backend": backends.split(",")}
    _change(call, lambda body: body["ports"].append(port))


def remove_port(call: Call) -> None:
    _, _, protocol, ports = call.words
    wanted = protocol, ports
    _change(call, lambda body: _remove(body["ports"], lambda p: (p["protocol"], p["listen_port"]) == wanted))


def _place(call: Call) -> str:
    return url("networks", call.words[0], "load-balancers", call.words[1])


def _remove(items: list[dict[str, Any]], is_it: Any) -> None:
    kept = [item for item in items if not is_it(item)]
    if len(kept) == len(items):
        raise Refused(404, "No matching backend or port found")
    items[:] = kept


def _change(call: Call, change: Any) -> None:
    found, etag = call.server.get_tagged(_place(call))
    change(found)
    body = {key: found[key] for key in ("description", "config", "backends", "ports")}
    call.server.send("PUT", _place(call), body, etag=etag)


# --- address sets ------------------------------------------------------------------------------------


def list_sets(call: Call) -> None:
    found = call.server.get(url(_SETS), recursion="1")
    rows = [[s["name"], s["description"], str(len(s["addresses"])), str(len(s["used_by"]))] for s in found]
    tables.show(call.text("format"), ("NAME", "DESCRIPTION", "ADDRESSES", "USED BY"), rows, found)


def show_set(call: Call) -> None:
    print(dump(call.server.get(url(_SETS, call.words[0]))), end="")


def create_set(call: Call) -> None:
    name, *addresses = call.words
    call.server.send("POST", url(_SETS), {"name": name, "addresses": addresses})
    call.say(f"Network address set {name} created")


def delete_set(call: Call) -> None:
    call.server.send("DELETE", url(_SETS, call.words[0]))
    call.say(f"Network address set {call.words[0]} deleted")


def add_addresses(call: Call) -> None:
    _change_set(call, lambda have, asked: [*have, *(a for a in asked if a not in have)])


def remove_addresses(call: Call) -> None:
    _change_set(call, lambda have, asked: [a for a in have if a not in asked])


def _change_set(call: Call, change: Any) -> None:
    name, *asked = call.words
    found, etag = call.server.get_tagged(url(_SETS, name))
    body = {"description": found["description"], "config": found["config"]}
    body["addresses"] = change(found["addresses"], asked)
    call.server.send("PUT", url(_SETS, name), body, etag=etag)
