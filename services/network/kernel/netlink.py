"""IPRoute and NetlinkError of pyroute2, without the half of that package that nobody here uses.

`import pyroute2` loads NDB, nl80211, plan9 and more: 5 MB and 100 ms.
"""

from __future__ import annotations

from core.slim import bare_package

bare_package("pyroute2")

from pyroute2.iproute.linux import IPRoute  # noqa: E402 - after the package was entered
from pyroute2.netlink.exceptions import NetlinkError  # noqa: E402

__all__ = ["IPRoute", "NetlinkError"]
