"""Who is trusted, by whose word, and what strangers try."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import datetime
import json

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from core.errors import AlreadyExists, Forbidden, Invalid, NotFound, PodiumError
from core.records import Certificate
from tests.unit.cluster.conftest import Cluster

DAY = datetime.timedelta(days=1)


def certificate(*, age: int = 1, days: int = 30, weak: bool = False) -> bytes:
    """Return a self-signed certificate in DER form."""
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
    key = rsa.generate_private_key(65537, 1024) if weak else ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "laptop")])
    start = datetime.datetime.now(datetime.UTC) - age * DAY
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(7).not_valid_before(start).not_valid_after(start + days * DAY)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


def text(der: bytes) -> str:
    return base64.b64encode(der).decode()


async def token(cluster: Cluster) -> tuple[str, str]:
    operation = await cluster.trust.create_token("ci", True, ["p1"], ["h:8443"])
    secret = operation.metadata["secret"]
    return text(json.dumps({"client_name": "ci", "secret": secret}).encode()), operation.id


async def test_a_certificate_is_found_by_its_prefix(cluster: Cluster) -> None:
    entry = await cluster.trust.add(text(certificate()), Certificate())
    assert (entry.record.name, entry.record.type) == ("laptop", "client")
    assert cluster.trust.get(entry.record.fingerprint[:8]).record == entry.record
    with pytest.raises(AlreadyExists):
        await cluster.trust.add(entry.record.certificate, Certificate())
    await cluster.trust.delete(entry.record.fingerprint[:12])
    with pytest.raises(NotFound):
        cluster.trust.get(entry.record.fingerprint)


@pytest.mark.parametrize(
    "bad", ["", "x", "é", "AAAA", "-----BEGIN CERTIFICATE-----", "-----BEGIN CERTIFICATE-----\nAA==\n", "\0"]
)
async def test_what_is_no_certificate_is_refused(cluster: Cluster, bad: str) -> None:
    with pytest.raises(Invalid):
        await cluster.trust.add(bad, Certificate())


@pytest.mark.parametrize("der", [certificate(age=40), certificate(age=-2), certificate(weak=True)])
async def test_expired_early_and_weak_ones_are_refused(cluster: Cluster, der: bytes) -> None:
    with pytest.raises(Invalid):
        await cluster.trust.add(text(der), Certificate())


async def test_every_cut_of_a_certificate_is_refused_politely(cluster: Cluster) -> None:
    der = certificate()
    for at in range(0, len(der), 7):
        for broken in (der[:at], der[:at] + b"\xff" + der[at + 1 :]):
            with contextlib.suppress(PodiumError):
                await cluster.trust.add(text(broken), Certificate())


async def test_the_password_lets_a_client_in_and_nothing_else_does(cluster: Cluster) -> None:
    der = certificate()
    with pytest.raises(Forbidden):
        await cluster.trust.redeem(der, "", "me")
    await cluster.server.update({"core.trust_password": "pw"}, unchanged=[], merge=True, expected_revision=0)
    for wrong in ("", "PW", "pw ", "é", "scrypt:", text(b'{"secret": "\xc3\xa9"}'), text(b"[]"), text(b"{}")):
        with pytest.raises(Forbidden):
            await cluster.trust.redeem(der, wrong, "me")
    assert (await cluster.trust.redeem(der, "pw", "me")).record.name == "me"


async def test_a_token_works_once_and_carries_its_restriction(cluster: Cluster) -> None:
    secret, _ = await token(cluster)
    entry = await cluster.trust.redeem(certificate(), secret, "other")
    assert (entry.record.name, entry.record.restricted, entry.record.projects) == ("ci", True, ("p1",))
    with pytest.raises(Forbidden):
        await cluster.trust.redeem(certificate(), secret, "other")


async def test_of_many_with_one_token_one_gets_in(cluster: Cluster) -> None:
    secret, _ = await token(cluster)
    tries = [cluster.trust.redeem(certificate(), secret, "") for _ in range(6)]
    done = await asyncio.gather(*tries, return_exceptions=True)
    assert sum(not isinstance(d, BaseException) for d in done) == 1
    assert len(cluster.trust.all()) == 1


async def test_a_cancelled_token_is_worthless(cluster: Cluster) -> None:
    secret, id = await token(cluster)
    await cluster.runner.cancel(id)
    with pytest.raises(Forbidden):
        await cluster.trust.redeem(certificate(), secret, "")


async def test_a_refused_certificate_does_not_use_the_token_up(cluster: Cluster) -> None:
    secret, _ = await token(cluster)
    with pytest.raises(Invalid):
        await cluster.trust.redeem(certificate(age=40), secret, "")
    await cluster.trust.redeem(certificate(), secret, "")


@pytest.mark.parametrize(("life", "good"), [("0S", False), ("1H 30M", True)])
async def test_a_token_ends_with_its_life(cluster: Cluster, life: str, good: bool) -> None:
    config = {"core.remote_token_expiry": life}
    await cluster.server.update(config, unchanged=[], merge=True, expected_revision=0)
    secret, _ = await token(cluster)
    if good:
        assert (await cluster.trust.redeem(certificate(), secret, "")).record.name == "ci"
        return
    with pytest.raises(Forbidden, match="Token has expired"):
        await cluster.trust.redeem(certificate(), secret, "")


async def test_a_client_is_confined_to_projects_that_exist_and_keeps_its_type(cluster: Cluster) -> None:
    with pytest.raises(NotFound, match="Project not found"):
        await cluster.trust.add(text(certificate()), Certificate(restricted=True, projects=("nosuch",)))
    with pytest.raises(Invalid, match="Invalid certificate type"):
        await cluster.trust.add(text(certificate()), Certificate(type="bogus"))
    made = (await cluster.trust.add(text(certificate()), Certificate())).record
    with pytest.raises(Invalid, match="The certificate type cannot be changed"):
        await cluster.trust.update(Certificate(made.fingerprint, type="metrics"))
    with pytest.raises(NotFound, match="Certificate not found"):
        cluster.trust.get("nosuch")
