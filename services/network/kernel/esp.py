"""Whether this kernel can encrypt what members send each other: ESP with AES-GCM (RFC 4106)."""

from __future__ import annotations

from services.network.kernel.programs import run

# A state between two addresses of the loopback that nothing is sent between. Source: ip-xfrm(8).
_STATE = ["src", "127.0.0.81", "dst", "127.0.0.82", "proto", "esp", "spi", "0x504f4421"]
_CIPHER = ["mode", "transport", "aead", "rfc4106(gcm(aes))", "0x" + "00" * 20, "128"]


async def has_esp() -> bool:
    """Make a state and take it back. Nothing else tells: what is missing may be a module that is loaded."""
    try:
        code, _ = await run(["ip", "xfrm", "state", "add", *_STATE, *_CIPHER])
        if code == 0:
            await run(["ip", "xfrm", "state", "delete", *_STATE])
    except OSError:  # no such program
        return False
    return code == 0
