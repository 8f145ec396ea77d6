"""IPRoute and NetlinkError of pyroute2, without the half of that package that nobody here uses.

`import pyroute2` loads NDB, nl80211, plan9 and more: 5 MB and 100 ms. Its submodules need none of it, so
the package is entered by its folder and its own `__init__` is left out.
"""

from __future__ import annotations

import importlib.util
import sys
import types


def _enter_package(name: str) -> None:
    """Make submodules of *name* importable without running its `__init__`. Repeatable."""
    if name in sys.modules:
        return
    spec = importlib.util.find_spec(name)
    if spec is None or spec.submodule_search_locations is None:
        raise ImportError(f"The package {name} is not installed; run `make up`")
    package = types.ModuleType(name)
    package.__path__ = list(spec.submodule_search_locations)
    package.__spec__ = spec
    sys.modules[name] = package


_enter_package("pyroute2")

from pyroute2.iproute.linux import IPRoute  # noqa: E402 - after the package was entered
from pyroute2.netlink.exceptions import NetlinkError  # noqa: E402

__all__ = ["IPRoute", "NetlinkError"]
