"""Which interfaces the host's default routes need, read from files as the kernel makes them."""

from __future__ import annotations

from pathlib import Path

from services.network.kernel.uplinks import uplinks

HEAD = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
NONE = "0" * 32
V6 = "{dst} {bits} {none} 00 {none} 00000400 00000001 00000000 {flags} {name}\n"


def _route(name: str, destination: str, mask: str, flags: str = "0003") -> str:
    return f"{name}\t{destination}\t0101A8C0\t{flags}\t0\t0\t0\t{mask}\t0\t0\t0\n"


def test_what_carries_a_default_route_and_what_that_lies_on(tmp_path: Path) -> None:
    """A bridge's port takes the bridge's route along; other routes do not count, nor such that refuse."""
    (tmp_path / "route").write_text(
        HEAD
        + _route("br9", "00000000", "00000000")
        + _route("lan9", "0000A8C0", "0000FFFF")
        + _route("lo", "00000000", "00000000", flags="0200")
    )
    (tmp_path / "ipv6_route").write_text(
        V6.format(dst=NONE, bits="00", none=NONE, flags="00000003", name="six9")
        + V6.format(dst=NONE, bits="00", none=NONE, flags="00200200", name="lo")
        + V6.format(dst=f"fe80{NONE[4:]}", bits="40", none=NONE, flags="00000001", name="lan9")
    )
    for path in ("br9/lower_bond9", "bond9/lower_port9", "lan9"):
        (tmp_path / "net" / path).mkdir(parents=True)
    assert uplinks(tmp_path, tmp_path / "net") == {"br9", "bond9", "port9", "six9"}


def test_a_kernel_without_a_protocol_has_no_route_of_it(tmp_path: Path) -> None:
    assert uplinks(tmp_path, tmp_path) == set()
