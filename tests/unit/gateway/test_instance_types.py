"""`lxc launch -t`."""

from __future__ import annotations

import pytest

from core.errors import Invalid
from gateway.lxd.instancetypes import limits_of


@pytest.mark.parametrize(
    ("text", "limits"),
    [
        ("", {}),
        ("c2-m4", {"limits.cpu": "2", "limits.memory": "4096MB"}),
        ("m0.5", {"limits.memory": "512MB"}),
        ("c1.5", {"limits.cpu": "2", "limits.cpu.allowance": "75%"}),
    ],
)
def test_a_size_becomes_limits(text: str, limits: dict[str, str]) -> None:
    """The same limits that LXD 5.0.2 gives."""
    assert limits_of(text) == limits


@pytest.mark.parametrize("text", ["t2.micro", "aws:t2.micro", "c", "m-1", "cinf", "c1-", "x4", "c1e3"])
def test_a_size_that_nobody_knows_is_refused(text: str) -> None:
    """Never an instance without the limits that were asked for."""
    with pytest.raises(Invalid, match="Provided instance type"):
        limits_of(text)
