"""Requests that another site's page makes a browser send, with the user's client certificate. Pure.

A browser says whose page asks (Sec-Fetch-Site, Origin), which no page can change. Clients that are no
browser say neither, or their own address, and are not concerned. Source: Fetch Metadata, W3C; RFC 6454.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

_READING = frozenset({"GET", "HEAD", "OPTIONS"})
_OWN = frozenset({"same-origin", "none"})


def is_foreign(method: str, headers: Mapping[str, str]) -> bool:
    """Say whether the request may change something, or opens a websocket, for a page that is not ours.

    Reading is left to the browser: it keeps answers from pages of other origins, but for websockets.
    """
    if method in _READING and headers.get("Upgrade", "").lower() != "websocket":
        return False
    site = headers.get("Sec-Fetch-Site", "")
    if site:
        return site not in _OWN
    origin = headers.get("Origin", "")
    return bool(origin) and _authority(origin) != headers.get("Host", "").lower()


def _authority(origin: str) -> str:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""
