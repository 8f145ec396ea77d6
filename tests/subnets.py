"""Addresses of one run of the tests: of two that run on a host at the same time, each has others."""

from __future__ import annotations

import os
from ipaddress import ip_address

_HIGH, _LOW = 64 + os.getpid() // 64 % 64, os.getpid() % 64 * 4
_FIRST = ip_address("198.18.0.0")


def net4(number: int) -> str:
    """Return the first three bytes of one of four /24 subnets."""
    return f"10.{_HIGH}.{_LOW + number}"


def net6(number: int) -> str:
    """Return the first 48 bits of one of four IPv6 subnets."""
    return f"fd42:{_HIGH:x}:{_LOW + number:x}"


def lone(number: int) -> str:
    """Return one of 128 addresses that no network here has; every fourth begins a /30."""
    return str(_FIRST + os.getpid() % 1024 * 128 + number)
