"""Build a Debian image from the machine's configured package mirror: needs root, so it is a command.

    python -m services.image.build debian 12 --output debian-12.tar.gz

The result is an ordinary unified image and enters Podium by the ordinary upload. Builds are cached
by a hash of their recipe.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from core.errors import PodiumError
from services.image.sources import apt

_RELEASES = {"11": "bullseye", "12": "bookworm", "13": "trixie"}
# udev: where /sys is writable, systemd-networkd waits for it to announce eth0.
_PACKAGES = (
    "systemd-sysv",
    "udev",
    "systemd-resolved",
    "libnss-myhostname",
    "dbus",
    "iproute2",
    "iputils-ping",
    "netbase",
    "procps",
)
_NETWORK = """[Match]
Name=eth0

[Network]
DHCP=ipv4
IPv6AcceptRA=yes

[DHCPv4]
UseDomains=true
"""
# Units that need what a container has not; without them the system comes up as "running".
_MASKED = (
    "systemd-networkd-wait-online.service",
    "systemd-journald-audit.socket",
    "sys-kernel-config.mount",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "dev-hugepages.mount",
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "fstrim.timer",
)
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_CACHE = Path("/var/cache/podium/images")


def recipe_hash(release: str, packages: tuple[str, ...]) -> str:
    text = repr((release, packages, _NETWORK, _MASKED, platform.machine(), 5))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def write_sources(target: Path, release: str) -> None:
    """Write the mirrors this machine uses for its own release: the only place where one is named."""
    lines = apt.source_list(apt.configured_lines(), apt.codename(), release)
    target.write_text("".join(f"{line}\n" for line in lines))


def build(release: str, output: Path, packages: tuple[str, ...] = ()) -> None:
    """Write the image to *output*, from the cache when the recipe was built before."""
    name = _RELEASES.get(release, release)
    wanted = _PACKAGES + packages
    _CACHE.mkdir(parents=True, exist_ok=True)
    cached = _CACHE / f"debian-{name}-{recipe_hash(name, wanted)}.tar.gz"
    if not cached.exists():
        with tempfile.TemporaryDirectory(prefix="build-", dir=_CACHE) as work:
            made = _build_in(Path(work), name, wanted)
            made.rename(cached)
    output.unlink(missing_ok=True)
    shutil.copyfile(cached, output)


def _build_in(work: Path, release: str, packages: tuple[str, ...]) -> Path:
    root = work / "rootfs"
    (work / "eth0.network").write_text(_NETWORK)
    write_sources(work / "sources.list", release)
    argv = ["mmdebstrap", "--variant=minbase", "--mode=root", f"--include={','.join(packages)}"]
    argv += [f"--customize-hook=copy-in {work}/eth0.network /etc/systemd/network"]
    argv += ["--customize-hook=chroot $1 systemctl enable systemd-networkd systemd-resolved"]
    argv += [f"--customize-hook=chroot $1 systemctl mask {' '.join(_MASKED)}"]
    argv += ["--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/man/*"]
    argv += ["--dpkgopt=path-exclude=/usr/share/locale/*", release, str(root), str(work / "sources.list")]
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL, timeout=1800)
    _generalise(root)
    _write_metadata(work, release)
    made = work / "image.tar.gz"
    with made.open("wb") as target:
        tar = subprocess.Popen(
            ["tar", "-C", str(work), "--numeric-owner", "--xattrs", "-cf", "-", "metadata.yaml", "rootfs"],
            stdout=subprocess.PIPE,
        )
        subprocess.run(["pigz", "-6"], stdin=tar.stdout, stdout=target, check=True, timeout=600)
        if tar.wait():
            raise RuntimeError("tar failed")
    return made


def _generalise(root: Path) -> None:
    """Take out what must differ between instances."""
    (root / "etc" / "machine-id").write_text("")
    (root / "etc" / "hostname").write_text("localhost\n")
    for leftover in ("var/lib/dbus/machine-id", "etc/resolv.conf", "etc/.resolv.conf.systemd-resolved.bak"):
        (root / leftover).unlink(missing_ok=True)
    os.symlink("../run/systemd/resolve/stub-resolv.conf", root / "etc" / "resolv.conf")
    shutil.rmtree(root / "var" / "cache" / "apt" / "archives", ignore_errors=True)


def _write_metadata(work: Path, release: str) -> None:
    number = next((n for n, r in _RELEASES.items() if r == release), release)
    architecture = _ARCHITECTURES.get(platform.machine(), platform.machine())
    now = time.gmtime()
    metadata = {
        "architecture": platform.machine(),
        "creation_date": int(time.time()),
        "properties": {
            "os": "Debian",
            "release": release,
            "version": number,
            "architecture": architecture,
            "variant": "default",
            "description": f"Debian {release} {architecture} ({time.strftime('%Y%m%d', now)})",
            "serial": time.strftime("%Y%m%d_%H%M", now),
        },
    }
    (work / "metadata.yaml").write_text(yaml.safe_dump(metadata))


def main() -> int:
    parser = argparse.ArgumentParser(prog="services.image.build")
    parser.add_argument("distribution", choices=["debian"])
    parser.add_argument("release")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--package", action="append", default=[])
    args = parser.parse_args()
    if os.geteuid():
        print("Building an image needs root; run it with sudo.", file=sys.stderr)
        return 1
    try:
        build(args.release, args.output, tuple(args.package))
    except PodiumError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 1
    except subprocess.SubprocessError as exc:
        # The program has said why on standard error; a traceback would bury it.
        print(f"error: {str(exc)[:200]}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
