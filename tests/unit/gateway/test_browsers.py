"""Pages of other sites that use a browser's client certificate (the class of CVE-2025-54286)."""

from __future__ import annotations

import pytest
from multidict import CIMultiDict

from gateway.browsers import is_foreign

OURS = "podium.example:8443"


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "websocket"])
@pytest.mark.parametrize(
    "said",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "https://podium.example"},
        {"Origin": "null"},
        {"Origin": "https://[evil"},
        {"Origin": f"https://{OURS}.evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Origin": f"https://{OURS}"},
    ],
    ids=str,
)
def test_another_sites_page_changes_nothing(method: str, said: dict[str, str]) -> None:
    upgrade = {"upgrade": "WebSocket"} if method == "websocket" else {}
    headers = CIMultiDict({"Host": OURS, **said, **upgrade})

    assert is_foreign("GET" if upgrade else method, headers)


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"Origin": f"https://{OURS}"},
        {"Origin": f"https://{OURS.upper()}"},
        {"Sec-Fetch-Site": "same-origin", "Origin": f"https://{OURS}"},
        {"Sec-Fetch-Site": "none"},
    ],
    ids=str,
)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_clients_and_our_own_pages_are_served(method: str, said: dict[str, str]) -> None:
    """lxc, curl and pylxd send no Origin, or that of the server they speak to."""
    assert not is_foreign(method, CIMultiDict({"Host": OURS, **said}))


def test_reading_is_left_to_the_browser() -> None:
    assert not is_foreign("GET", CIMultiDict({"Host": OURS, "Origin": "https://evil.example"}))
