"""The datagram that gives a lease back."""

from services.network.kernel.release import message


def test_a_release_names_the_address_the_mac_and_the_server() -> None:
    """Laid out as RFC 2131 says: ciaddr at 12, chaddr at 28, options after the cookie at 236."""
    data = message("10.1.2.3", "00:16:3e:01:02:03", "10.1.2.1")

    assert data[12:16] == bytes([10, 1, 2, 3])
    assert data[28:34] == bytes.fromhex("00163e010203")
    assert data[236:240] == b"\x63\x82\x53\x63"
    assert data[240:] == bytes([53, 1, 7, 54, 4, 10, 1, 2, 1, 255])
