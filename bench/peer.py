"""Run a real LXD beside Podium, in a directory of its own, and leave nothing behind.

`python -m bench.peer shell DIR` keeps one up to be asked questions; the benchmark uses `lxd_peer`.
Everything it starts is ended by process id, never by name.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

from bench.client import Side
from bench.host import (
    INOTIFY,
    attempt,
    end,
    is_alive,
    mounts_under,
    pid_in,
    raised,
    run,
    unmount_all,
    wait_until,
)
from bench.image import ensure_image

ALIAS = "debian/12"

PRESEED = """
config: {{}}
networks:
- name: {bridge}
  type: bridge
  config: {{ipv4.address: {address}, ipv4.nat: "true", ipv6.address: none}}
storage_pools:
- name: default
  driver: btrfs
  config: {{size: {size}}}
profiles:
- name: default
  devices:
    root: {{path: /, pool: default, type: disk}}
    eth0: {{name: eth0, network: {bridge}, type: nic}}
"""


@contextlib.contextmanager
def lxd_peer(folder: Path, *, size: str = "20GiB") -> Iterator[Side]:
    """Yield a running LXD in *folder* with a btrfs loop pool `default`; remove all of it after."""
    side = Side("lxd", folder / "lxd", folder / "client")
    bridge, address = bridge_of(folder)
    side.lxd_dir.mkdir(parents=True, mode=0o711)
    with raised(INOTIFY, 4096):
        daemon = start_daemon(side)
        try:
            side.pids = [daemon.pid]
            configure(side, bridge, address, size)
            yield side
        finally:
            remove(side, daemon, bridge)
            shutil.rmtree(folder, ignore_errors=True)


def bridge_of(folder: Path) -> tuple[str, str]:
    """Return name and address of the bridge of the peer in *folder*, so that several can live on one host.

    LXD's search for a free subnet fails on hosts whose routes it cannot read, so it is told one.
    """
    number = zlib.crc32(str(folder.resolve()).encode()) % 250
    return f"lxdpeer{number}", f"10.179.{number}.1/24"


def start_daemon(side: Side) -> subprocess.Popen[bytes]:
    # A session of its own: ^C ends the benchmark, which then stops the daemon in order.
    log = (side.lxd_dir.parent / "lxd.log").open("wb")
    argv = ["lxd", "--group", "root"]
    daemon = subprocess.Popen(argv, env=side.env(), stdout=log, stderr=log, start_new_session=True)
    wait_until(side.socket.exists, timeout_s=60, what="LXD's socket")
    subprocess.run(["lxd", "waitready", "--timeout=60"], env=side.env(), check=True, timeout=90)
    return daemon


def configure(side: Side, bridge: str, address: str, size: str) -> None:
    text = PRESEED.format(bridge=bridge, size=size, address=address)
    run("lxd", "init", "--preseed", env=side.env(), stdin=text, timeout_s=180)


def remove(side: Side, daemon: subprocess.Popen[bytes], bridge: str) -> None:
    """Take everything away again, through LXD as long as it answers, then by hand."""
    dnsmasq = pid_in(side.lxd_dir / "networks" / bridge / "dnsmasq.pid")
    if daemon.poll() is None:
        with contextlib.suppress(Exception):
            empty(side, bridge)
    stop_daemon(side, daemon)
    if dnsmasq and is_dnsmasq(dnsmasq):
        end(dnsmasq)
    sweep(side, bridge)


def empty(side: Side, bridge: str) -> None:
    """Ask LXD to delete what it holds, so that it takes its own rules and mounts away."""
    side.delete_all("")
    for image in side.request("GET", "/1.0/images").get("metadata") or []:
        side.try_lxc("image", "delete", image.rpartition("/")[2])
    side.try_lxc("profile", "device", "remove", "default", "eth0")
    side.try_lxc("profile", "device", "remove", "default", "root")
    side.try_lxc("network", "delete", bridge)
    side.try_lxc("storage", "delete", "default")


def stop_daemon(side: Side, daemon: subprocess.Popen[bytes]) -> None:
    if daemon.poll() is None:
        attempt("env", f"LXD_DIR={side.lxd_dir}", "lxd", "shutdown", "--timeout=30", timeout_s=60)
    with contextlib.suppress(subprocess.TimeoutExpired):
        daemon.wait(timeout=20)
    if daemon.poll() is None:
        daemon.kill()
        daemon.wait()


def is_dnsmasq(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return is_alive(pid) and "dnsmasq" in Path(f"/proc/{pid}/comm").read_text()
    return False


def sweep(side: Side, bridge: str) -> None:
    """Remove what a killed LXD leaves: mounts, loop devices, the bridge."""
    for _ in range(3):
        if mounts_under(side.lxd_dir):
            unmount_all(side.lxd_dir)
    for device in loops_below(side.lxd_dir):
        attempt("losetup", "-d", device)
    if Path(f"/sys/class/net/{bridge}").exists():
        attempt("ip", "link", "delete", bridge)
    drop_empty_table()


def drop_empty_table() -> None:
    """LXD leaves its nft table behind; take it away unless another LXD still has chains in it."""
    shown = subprocess.run(
        ["nft", "list", "table", "inet", "lxd"], capture_output=True, text=True, timeout=30
    )
    if shown.returncode == 0 and "chain" not in shown.stdout:
        attempt("nft", "delete", "table", "inet", "lxd")


def loops_below(folder: Path) -> list[str]:
    """Loop devices whose backing file lies below *folder*, deleted or not."""
    found = []
    for file in Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):
            if file.read_text().startswith(f"{folder}/"):
                found.append(f"/dev/{file.parts[3]}")
    return found


def shell(folder: Path) -> None:
    """Keep a peer with the image up until SIGTERM or ^C; print how to reach it."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with lxd_peer(folder) as side:
        side.lxc("image", "import", str(ensure_image()), "--alias", ALIAS)
        print(f"# stop me: kill {os.getpid()}")
        print(f"export LXD_DIR={side.lxd_dir} LXD_CONF={side.config_dir}", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()


if __name__ == "__main__":
    if sys.argv[1:2] != ["shell"]:
        sys.exit("usage: python -m bench.peer shell [DIR]")
    shell(Path(sys.argv[2] if len(sys.argv) > 2 else f"/var/tmp/podium-peer-{os.getpid()}"))
