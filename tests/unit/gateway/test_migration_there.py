"""Where migrations may be sent, and by whom."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from core.errors import Invalid, NotFound, Unavailable
from gateway.migration.channels import Meeting, There

_ID = "/1.0/operations/01234567-0123-0123-0123-0123456789ab"


class Other:
    """A server that counts who connects, and sends everybody elsewhere."""

    def __init__(self, folder: Path) -> None:
        self.certificate, self._key = _pair(folder)
        self.came: list[str] = []
        self.port = 0

    async def serving(self) -> AsyncIterator[Other]:
        async def answer(request: web.BaseRequest) -> web.Response:
            self.came.append(request.path)
            return web.Response(status=302, headers={"Location": f"https://127.0.0.1:{self.port}/inner"})

        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.certificate, self._key)
        runner = web.ServerRunner(web.Server(answer))
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        self.port = runner.addresses[0][1]
        yield self
        await runner.cleanup()

    def there(self, host: str = "127.0.0.1", *, outside_only: bool = False) -> There:
        url = f"https://{host}:{self.port}{_ID}"
        secrets = {"control": "a", "fs": "b"}
        return There(url, self.certificate.read_text(), secrets, outside_only=outside_only)


def _pair(folder: Path) -> tuple[Path, Path]:
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + timedelta(days=1))
    made = builder.sign(key, hashes.SHA256())
    certificate, private = folder / "crt", folder / "key"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    form = serialization.PrivateFormat.PKCS8
    private.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    return certificate, private


@pytest.fixture
async def other(tmp_path: Path) -> AsyncIterator[Other]:
    async for served in Other(tmp_path).serving():
        yield served


async def _connected(there: There) -> None:
    async with asyncio.timeout(10), there.channels():
        pass


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "0.0.0.0", "127.1"])
async def test_who_is_confined_reaches_nothing_inside(other: Other, host: str) -> None:
    """Not by a name, and not by another way to write it: what is connected to is what was checked."""
    with pytest.raises(Unavailable, match="could not be reached"):
        await _connected(other.there(host, outside_only=True))
    assert other.came == []


async def test_nobody_is_sent_elsewhere(other: Other) -> None:
    """The certificate was of the address that was given."""
    with pytest.raises(Unavailable, match="leads elsewhere"):
        await _connected(other.there())
    assert other.came == [f"{_ID}/websocket"]


async def test_no_secret_opens_nothing() -> None:
    """Whoever asks for a websocket of an operation needs no name, so an empty secret must be none."""
    meeting = Meeting({"control": "", "fs": "right"})
    for query in ("", "?secret=", "?secret=wrong"):
        with pytest.raises(NotFound):
            await meeting.take(make_mocked_request("GET", f"{_ID}/websocket{query}"))
    assert not meeting.claimed


@pytest.mark.parametrize(
    "url",
    [
        "",
        "https://[",
        "https://[x]" + _ID,
        "https://" + _ID,
        "http://a" + _ID,
        "https://a/1.0",
    ],
)
def test_what_is_no_url_of_an_operation_is_refused(url: str) -> None:
    """A bracket alone once ended in an internal error."""
    with pytest.raises(Invalid, match="https URL of an operation"):
        There(url, "", {"control": "a", "fs": "b"}).check()
