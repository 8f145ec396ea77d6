"""The server key images.mirrors: which addresses stand for which server of images. Pure."""

from __future__ import annotations

_MOST = 16


def parse_mirrors(text: str) -> dict[str, tuple[str, ...]]:
    """Return each server's mirrors, in the order in which they are asked before it.

    Written as "SERVER=MIRROR,MIRROR SERVER=MIRROR", all of them addresses without a slash at the end.
    Raises: ValueError.
    """
    found: dict[str, tuple[str, ...]] = {}
    for entry in text.split():
        server, _, rest = entry.partition("=")
        mirrors = tuple(mirror.rstrip("/") for mirror in rest.split(",") if mirror)
        if not mirrors or len(mirrors) > _MOST or not all(map(_is_address, (server, *mirrors))):
            raise ValueError(f"{entry[:80]!r} is not SERVER=MIRROR,MIRROR of https addresses")
        found[server.rstrip("/")] = mirrors
    return found


def _is_address(text: str) -> bool:
    return text.startswith(("https://", "http://")) and len(text) > len("https://") and text.isprintable()
