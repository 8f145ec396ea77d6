"""Give a gRPC client a certificate of the cluster's CA. As root, on the member that has the CA."""

from __future__ import annotations

from pathlib import Path

from core.errors import Invalid
from core.settings import Settings
from services.cluster.authority import Authority, write_private


def write(settings: Settings, name: str, folder: Path) -> list[Path]:
    """Write NAME.crt, NAME.key and ca.crt into *folder* and return their paths.

    Raises:
        Invalid: the name cannot be one, or its files are there already.
        NotFound: this member's CA cannot be read.
        OSError: *folder* cannot be written.
    """
    certificate, key, ca = (folder / file for file in (f"{name}.crt", f"{name}.key", "ca.crt"))
    if "/" in name or name.startswith(".") or name == "ca":
        raise Invalid("BAD_NAME", f"{name!r} cannot be the name of a client and its files", about=name)
    if key.exists():
        raise Invalid("EXISTS", f"{key} is there already; take another name or remove it", about=name)
    pair = Authority(settings.tls_dir, settings.group).client(name)
    folder.mkdir(parents=True, exist_ok=True)
    ca.write_bytes((settings.tls_dir / "ca.crt").read_bytes())
    certificate.write_bytes(pair.certificate)
    write_private(key, pair.key)
    return [certificate, key, ca]
