"""`podium monitor`: events as they happen, until ctrl-c; a lost connection loses none of them."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Iterator
from typing import Any

from cli.call import Call
from cli.failure import Refused, Unreachable
from cli.server import url
from cli.texts import parse_time
from cli.websocket import TEXT, WebSocket

_FORMATS = ("yaml", "json", "pretty")
_TYPES = ("lifecycle", "operation", "logging")
_PATIENCE_S = 30.0
_PAUSE_S = 0.2
_LEVELS = ("panic", "fatal", "error", "warning", "info", "debug", "trace")


def follow(call: Call) -> None:
    format = "pretty" if call.on("pretty") else call.text("format", "yaml")
    if format not in _FORMATS:
        raise call.misuse(f"there is no format {format!r}", f"formats are {', '.join(_FORMATS)}")
    types = [kind for text in call.texts("type") for kind in text.split(",")]
    if unknown := [kind for kind in types if kind not in _TYPES]:
        raise call.misuse(f"there are no {unknown[0]!r} events", f"types are {', '.join(_TYPES)}")
    query = {"type": ",".join(types)} if types else {}
    if call.on("all-projects"):
        query["all-projects"] = "true"
    if since := call.text("since"):
        query["since"] = since
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    for event in _events(call, query):
        if is_loud_enough(event, call.text("loglevel")):
            sys.stdout.write(render(event, format))
            sys.stdout.flush()
    raise Unreachable("the events have ended", "the server closed the connection", "podium monitor, again")


def _events(call: Call, query: dict[str, str]) -> Iterator[dict[str, Any]]:
    """Yield events; go on after the last one when the connection was lost, as long as one is known."""
    socket: WebSocket | None = WebSocket(*call.server.connect(url("events"), **query))
    while socket:
        for message in socket.messages():
            if message.opcode == TEXT:
                event = json.loads(message.payload)
                query["since"] = event.get("cursor", query.get("since", ""))
                yield event
        socket = _again(call, query) if query.get("since") else None


def _again(call: Call, query: dict[str, str]) -> WebSocket:
    """Raises: Unreachable, Refused when the server is not back in time, or has no such history."""
    end = time.monotonic() + _PATIENCE_S
    while True:
        time.sleep(_PAUSE_S)
        try:
            return WebSocket(*call.server.connect(url("events"), **query))
        except Unreachable:
            if time.monotonic() > end:
                raise
        except Refused as exc:
            if exc.status < 500 or time.monotonic() > end:
                raise


def is_loud_enough(event: dict[str, Any], least: str) -> bool:
    if event["type"] != "logging" or least not in _LEVELS:
        return True
    level = event["metadata"].get("level", "info")
    return level not in _LEVELS or _LEVELS.index(level) <= _LEVELS.index(least)


def render(event: dict[str, Any], format: str) -> str:
    if format == "json":
        return json.dumps(event, separators=(",", ":"), sort_keys=True) + "\n"
    if format == "pretty":
        return pretty(event) + "\n"
    from cli.documents import dump, sorted_maps

    return dump(sorted_maps(event)) + "\n\n"


def pretty(event: dict[str, Any]) -> str:
    """Return one line: when, which kind, and what."""
    at = parse_time(event["timestamp"])
    clock = at.astimezone().strftime("%H:%M:%S") if at else event["timestamp"]
    return f"{clock} {event['type']:9} {_said(event['type'], event['metadata'])}"


def _said(kind: str, metadata: dict[str, Any]) -> str:
    if kind == "lifecycle":
        who = (metadata.get("requestor") or {}).get("username", "")
        return f"{metadata['action']} {metadata['source']}" + (f" by {who}" if who else "")
    if kind == "operation":
        error = f": {metadata['err']}" if metadata.get("err") else ""
        return f"{metadata['status'].lower()} {metadata['description']} {metadata['id']}{error}"
    context = " ".join(f"{key}={value}" for key, value in (metadata.get("context") or {}).items())
    return f"{metadata.get('level', '')} {metadata.get('message', '')} {context}".rstrip()
