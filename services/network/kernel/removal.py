"""Delete interfaces without waiting for what the kernel does when they are gone. Blocks for 2 ms.

A deletion returns when no processor can be looking at the interface any more, after 15 ms of grace periods.
Its name, and its place in /sys, go long before (source: net/core/dev.c, unregister_netdevice_many). The
kernel ends what it has begun, whatever becomes of us.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

from services.network.kernel import rtnl
from services.network.kernel.ifaces import SYS

_AT_ONCE = 4
_LOOK_S = 0.0003


class Remover:
    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="removal")

    def close(self) -> None:
        self._threads.shutdown(wait=False)

    def remove(self, index: int, name: str) -> None:
        """Return when nobody sees the interface any more, or the kernel has refused to delete it."""
        done = self._threads.submit(rtnl.delete, index)
        while not done.done() and (SYS / name).exists():
            time.sleep(_LOOK_S)
