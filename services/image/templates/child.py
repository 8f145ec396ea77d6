"""python -m services.image.templates.child: templates on stdin, their texts on stdout, as JSON.

Runs for one request. Before it reads the first byte of a stranger's, it has given up everything but
its memory and its two pipes.
"""

from __future__ import annotations

import json
import os
from typing import Any

from services.image.templates.engine import render
from services.image.templates.scope import Budget
from services.image.templates.sealed import limit, seal
from services.image.templates.values import TemplateError

_MEMORY = 512 << 20
_CPU_S = 5


def main() -> None:
    "".join(["ä"]).encode("utf-8")  # what encoders load lazily must be there before nothing can be opened
    limit(memory=_MEMORY, cpu_s=_CPU_S)
    seal()
    _write(json.dumps(_answer(json.loads(_read()))).encode())
    os._exit(0)


def _answer(asked: dict[str, Any]) -> dict[str, Any]:
    """Return the texts of all, or what is wrong with the first that cannot be rendered."""
    budget, made = Budget(), list[str]()
    for job in asked["jobs"]:
        context = {**asked["context"], **job["context"]}
        try:
            made.append(render(job["source"], context, budget))
        except TemplateError as exc:
            return {"failed": len(made), "why": str(exc)}
    return {"texts": made}


def _read() -> bytes:
    found = bytearray()
    while chunk := os.read(0, 1 << 16):
        found += chunk
    return bytes(found)


def _write(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]


if __name__ == "__main__":
    main()
