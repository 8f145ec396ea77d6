"""Build the Debian 12 system image that both sides of the benchmark launch.

One unified tar.gz (metadata.yaml + rootfs/), made once by mmdebstrap from the machine's
configured mirror and kept; delete the file to have it made afresh.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

CACHE = Path("/var/cache/podium/bench")
# networkd waits for udev wherever /sys is writable, as it is in LXD's containers.
PACKAGES = (
    "systemd",
    "udev",
    "systemd-sysv",
    "dbus",
    "iproute2",
    "iputils-ping",
    "libnss-resolve",
    "systemd-resolved",
)
SUITE = "bookworm"

NETWORK_FILE = """[Match]
Name=eth0

[Network]
DHCP=yes

[DHCPv4]
ClientIdentifier=mac
"""

METADATA = """architecture: x86_64
creation_date: {now}
properties:
  architecture: x86_64
  description: Debian 12 (bench)
  os: debian
  release: bookworm
  variant: default
templates: {{}}
"""


def ensure_image(target: Path = CACHE / "debian-12.tar.gz") -> Path:
    """Return the image file, building it if it is missing. May be repeated; takes minutes once."""
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="build-") as folder:
        built = build_image(Path(folder))
        built.rename(target)
    return target


def build_image(folder: Path) -> Path:
    """Build the image below *folder* and return the tar.gz."""
    rootfs = folder / "rootfs"
    bootstrap(rootfs)
    prepare_rootfs(rootfs)
    (folder / "metadata.yaml").write_text(METADATA.format(now=int(time.time())))
    built = folder / "image.tar.gz"
    argv = ["tar", "--numeric-owner", "--xattrs", "-C", str(folder), "-I", "pigz -6", "-cf", str(built)]
    subprocess.run([*argv, "metadata.yaml", "rootfs"], check=True, timeout=300)
    return built


def bootstrap(rootfs: Path) -> None:
    """Fill *rootfs* with a minimal Debian from the mirror that apt is configured with."""
    argv = ["mmdebstrap", "--mode=root", "--variant=minbase", f"--include={','.join(PACKAGES)}"]
    argv += ["--skip=check/empty", *apt_options(), SUITE, str(rootfs), *sources()]
    subprocess.run(argv, check=True, timeout=900)


def apt_options() -> list[str]:
    """Hand the host's apt proxy settings on; mmdebstrap does not read the host's apt.conf."""
    shown = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=True, timeout=30)
    lines = re.findall(r"^Acquire::https?::[^\n]*\"[^\"]+\";$", shown.stdout, re.MULTILINE)
    return [f"--aptopt={line.rstrip(';')}" for line in lines]


def sources() -> list[str]:
    folder = Path("/etc/apt/sources.list.d")
    deb822 = folder / "debian.sources"
    classic = Path("/etc/apt/sources.list")
    return [str(path) for path in (deb822, classic) if path.exists() and path.stat().st_size][:1]


def prepare_rootfs(rootfs: Path) -> None:
    """Make it a container: DHCP on eth0, no identity of its own, no caches."""
    (rootfs / "etc/systemd/network/eth0.network").write_text(NETWORK_FILE)
    enable(rootfs, "systemd-networkd.service", "systemd-resolved.service")
    (rootfs / "etc/machine-id").write_text("")
    (rootfs / "etc/hostname").unlink(missing_ok=True)  # the manager names the UTS namespace
    for cache in ("var/cache/apt", "var/lib/apt/lists"):
        shutil.rmtree(rootfs / cache, ignore_errors=True)
        (rootfs / cache).mkdir(parents=True)


def enable(rootfs: Path, *units: str) -> None:
    wait_online = "systemd-networkd-wait-online.service"
    subprocess.run(["systemctl", f"--root={rootfs}", "enable", *units], check=True, timeout=60)
    subprocess.run(["systemctl", f"--root={rootfs}", "mask", wait_online], check=True, timeout=60)


if __name__ == "__main__":
    print(ensure_image())
