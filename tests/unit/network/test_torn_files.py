"""Files of our own that a loss of power left half-written, or with bytes of something else."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.records import Network
from services.network.kernel.dnsmasq import Dnsmasq

LEASE = b"1796083200 00:16:3e:00:00:01 10.0.0.5 web *\n"


@pytest.mark.parametrize(
    "torn", [b"", b"\x00" * 64, b"\xa0\xff\xfe a b c\n", b"1 2 3.x 4\n", b"1796083200 00:16:3e:00", b"\n\n"]
)
def test_leases_beside_something_torn_are_read(tmp_path: Path, torn: bytes) -> None:
    """Else no instance on that network could be started until somebody deletes the file."""
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "leases").write_bytes(LEASE + torn)

    assert Dnsmasq(tmp_path).leased("b") == {"10.0.0.5": "00:16:3e:00:00:01"}


async def test_a_server_starts_anew_over_a_torn_note_of_its_command(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "dnsmasq.argv").write_bytes(b"dnsmasq\xa0\xff")
    plain = Network("b", config={"ipv4.address": "none", "ipv6.address": "none", "dns.mode": "none"})

    await Dnsmasq(tmp_path).ensure(plain, 1)
