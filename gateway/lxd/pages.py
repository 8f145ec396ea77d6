"""Parts of a list: `limit` and `continue` for where, `fields` for what of each. An extension of ours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from aiohttp import web

from core.errors import Invalid

# What is read together on the host, by the fields of a state that need it.
_FIGURES = {
    "state.cpu": "usage",
    "state.disk": "disk",
    "state.memory": "usage",
    "state.network": "network",
    "state.processes": "usage",
}
_ALWAYS = ("status", "status_code", "pid")
_OTHERS = ("snapshots",)
_MOST = 10_000
NEXT = "X-Podium-Continue"


@dataclass(frozen=True)
class Page:
    """limit 0: all. revision and place are those of the end of the page before; "" on the first."""

    limit: int = 0
    place: str = ""
    revision: int = 0

    @classmethod
    def of(cls, request: web.Request) -> Page:
        """Raises: Invalid."""
        limit, token = request.query.get("limit", ""), request.query.get("continue", "")
        if limit and not (limit.isascii() and limit.isdecimal() and 0 < int(limit[:9]) <= _MOST):
            raise Invalid("BAD_LIMIT", f"limit must be a number from 1 to {_MOST}")
        revision, _, place = token.partition(":")
        if token and not (revision.isascii() and revision.isdecimal() and place and len(token) < 1024):
            raise Invalid("BAD_CONTINUE", f"continue must be what {NEXT} of the page before said")
        return cls(int(limit or 0), place, int(revision[:18] or 0))

    def following(self, place: str, revision: int) -> dict[str, str]:
        """Return the header that leads to the next page; it keeps the revision of the first."""
        return {NEXT: f"{self.revision or revision}:{place}"} if place else {}


@dataclass(frozen=True)
class Fields:
    """Which of the costly parts of an instance are asked for; None for all."""

    names: frozenset[str] | None = None

    @classmethod
    def of(cls, request: web.Request) -> Fields:
        """Raises: Invalid."""
        text = request.query.get("fields")
        if text is None:
            return cls()
        names = frozenset(part.strip() for part in text.split(",") if part.strip())
        if unknown := sorted(names - {*_FIGURES, *_OTHERS, "state"}):
            known = ", ".join(("state", *_FIGURES, *_OTHERS))
            raise Invalid("BAD_FIELDS", f"Unknown field {unknown[0][:64]!r}; there are {known}")
        return cls(names | frozenset(_FIGURES) if "state" in names else names)

    @property
    def figures(self) -> list[str]:
        """Return what has to be read on the host; a list of what is not there reads nothing."""
        if self.names is None:
            return []
        return sorted({_FIGURES[name] for name in self.names if name in _FIGURES}) or ["none"]

    @property
    def snapshots(self) -> bool:
        return self.names is None or "snapshots" in self.names

    def cut(self, state: dict[str, Any]) -> dict[str, Any]:
        if self.names is None:
            return state
        return {k: v for k, v in state.items() if k in _ALWAYS or f"state.{k}" in self.names}
