"""`podium query`: one request as it is, for what has no verb."""

from __future__ import annotations

import json
from typing import Any

from cli.call import Call
from cli.failure import CliError

_METHODS = ("GET", "PUT", "POST", "PATCH", "DELETE")


def send(call: Call) -> None:
    method, path = call.text("request", "GET").upper(), call.words[0]
    if method not in _METHODS:
        raise call.misuse(f"there is no method {method!r}", f"methods are {', '.join(_METHODS)}")
    if not path.startswith("/"):
        raise call.misuse(f"{path!r} is no path", "it must begin with /, such as /1.0/instances")
    with call.server.stream(method, path, _body(call)) as reply:
        data = reply.read()
        if reply.headers.get_content_type() != "application/json":
            print(data.decode(errors="replace"), end="")
            return
    answer = json.loads(data)
    if call.on("wait") and answer.get("type") == "async":
        answer = {"metadata": call.server.wait(answer["metadata"], doing=f"{method} {path}")}
    _print(answer, is_raw=call.on("raw"))


def _body(call: Call) -> Any:
    text = call.text("data")
    if not text:
        return None
    try:
        return json.loads(text)
    except ValueError as exc:
        raise CliError("--data is no JSON", str(exc), 'quote it: --data \'{"name": "web"}\'') from exc


def _print(answer: dict[str, Any], *, is_raw: bool) -> None:
    shown = answer if is_raw else answer.get("metadata")
    if shown is not None and shown != {}:
        print(json.dumps(shown, indent="\t", ensure_ascii=False) + "\n")
