"""Run by test_conflicts.py in a network namespace of its own: what another program does to networks there.

unshare -n python -m tests.integration.network.alone forward|server FOLDER
"""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
from pathlib import Path

from core.errors import PodiumError
from core.records import Network
from core.state.memory import MemoryStore
from services.network.domain import conflicts
from services.network.kernel.host import LinuxHost
from services.network.store import NetworkStore
from services.network.usecases.networks import Networks

NETWORK = Network("ptalone", config={"ipv4.address": "10.77.77.1/24", "ipv6.address": "none"})
_DOCKER = """
table ip filter {
 chain DOCKER-USER { counter return
 }
 chain FORWARD { type filter hook forward priority filter; policy drop; counter jump DOCKER-USER
 }
}
"""


async def _found(host: LinuxHost) -> list[str]:
    seen = await host.seen()
    return [c.message for c in conflicts.find([NETWORK], seen) if c.type != conflicts.KERNEL]


async def forward(host: LinuxHost, networks: Networks) -> list[list[str]]:
    """What is found before, with Docker's policy, and after its commands were run."""
    await networks.create(NETWORK)
    found = [await _found(host)]
    await asyncio.to_thread(subprocess.run, ["nft", "-f", "-"], input=_DOCKER.encode(), check=True)
    found.append(await _found(host))
    for side in ("iifname", "oifname"):
        rule = f"insert rule ip filter DOCKER-USER {side} ptalone accept"
        await asyncio.to_thread(subprocess.run, ["nft", rule], check=True)
    found.append(await _found(host))
    return found


async def server(host: LinuxHost, networks: Networks) -> list[list[str]]:
    """What a network says that cannot come up because somebody has port 53."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("0.0.0.0", 53))
        try:
            await networks.create(NETWORK)
        except PodiumError as exc:
            return [[exc.message]]
    return [[]]


async def main(which: str, folder: Path) -> None:
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    store, host = NetworkStore(MemoryStore()), LinuxHost(folder)
    networks = Networks(store, host)
    await store.start()
    try:
        found = await {"forward": forward, "server": server}[which](host, networks)
    finally:
        await host.ensure_down(NETWORK.name)
        await store.stop()
        host.close()
    print(json.dumps(found))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
