"""Have templates rendered by a process of their own, and wait for it no longer than is sensible."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from core.errors import Invalid

_ROOT = Path(__file__).resolve().parents[3]
_TIMEOUT_S = 15.0
_AT_ONCE = 4
_MOST_ANSWER = 64 << 20


@dataclass(frozen=True)
class Job:
    """One template for one path."""

    path: str
    name: str
    source: bytes
    trigger: str
    properties: dict[str, str] = field(default_factory=dict)


class TemplateRunner:
    def __init__(self) -> None:
        self._free = asyncio.Semaphore(_AT_ONCE)

    async def render(self, context: dict[str, Any], jobs: list[Job]) -> list[bytes]:
        """Return the texts in order. Raises: Invalid, naming the template that cannot be rendered."""
        asked = {"context": context, "jobs": [_asked(job) for job in jobs]}
        async with self._free:
            answer = await _answer(orjson.dumps(asked))
        if answer is None:
            names = ", ".join(sorted({job.name for job in jobs}))
            raise _bad(names, "it takes too much time or memory")
        if "why" in answer:
            raise _bad(jobs[answer["failed"]].name, answer["why"])
        return [text.encode("utf-8", "replace") for text in answer["texts"]]


def _asked(job: Job) -> dict[str, Any]:
    try:
        source = job.source.decode()
    except UnicodeDecodeError:
        raise _bad(job.name, "it is not UTF-8") from None
    own = {"trigger": job.trigger, "path": job.path, "properties": job.properties}
    return {"source": source, "context": own}


def _bad(name: str, why: str) -> Invalid:
    return Invalid("BAD_TEMPLATE", f"The template {name[:80]!r} cannot be rendered: {why}", about=name[:80])


async def _answer(asked: bytes) -> dict[str, Any] | None:
    """Return what the child says; None when it did not come to that."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-S", "-B", "-m", "services.image.templates.child"),
        stdin=PIPE,
        stdout=PIPE,
        stderr=DEVNULL,
        cwd="/",
        env={"PYTHONPATH": str(_ROOT), "LANG": "C.UTF-8", "PATH": os.defpath},
    )
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            output, _ = await process.communicate(asked)
    except TimeoutError:
        return None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode or len(output) > _MOST_ANSWER:
        return None
    return orjson.loads(output)  # type: ignore[no-any-return]
