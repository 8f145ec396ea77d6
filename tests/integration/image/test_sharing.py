"""Images given to others: to guests, by secret, and sent to servers that are good, broken or hostile."""

from __future__ import annotations

import asyncio
import datetime
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from core.errors import Forbidden, Invalid, NotFound, PodiumError
from core.operations.operation import CANCELLED, FAILED, SUCCEEDED, Operation
from core.rpc.identity import Identity, set_identity
from protos.podium.image.v1 import image_pb2
from protos.podium.image.v1 import share_pb2 as pb
from tests.fakes.image_target import ImageTarget, target
from tests.integration.image.harness import YAML, Service, packed, tarball, unified

_GUEST = pb.Reader(is_guest=True)
_SPLIT = (packed(tarball({"metadata.yaml": YAML}), "xz"), packed(tarball({"hello": b"world"}), "xz"))


async def _read(
    service: Service,
    fingerprint: str,
    reader: pb.Reader,
    part: Any = image_pb2.IMAGE_PART_UNIFIED,
    **piece: int,
) -> bytes:
    wanted = pb.ExportFileRequest(
        project="default", fingerprint=fingerprint, reader=reader, part=part, **{"length": 1 << 40, **piece}
    )
    return b"".join([message.chunk async for message in service.shares.ExportFile(wanted)])


async def _files(service: Service, fingerprint: str, reader: pb.Reader) -> Any:
    asked = pb.GetFilesRequest(project="default", fingerprint=fingerprint, reader=reader)
    return await service.shares.GetFiles(asked)


async def _secret(service: Service, fingerprint: str) -> str:
    asked = pb.CreateImageSecretRequest(project="default", fingerprint=fingerprint)
    operation = (await service.shares.CreateImageSecret(asked)).operation
    return str(service.runner.get(operation.id).metadata["secret"])


# --- guests ------------------------------------------------------------------------------------------


async def test_a_guest_hears_the_same_of_what_is_private_and_what_is_not_there(service: Service) -> None:
    """By beginnings too, else a stranger could find out digit by digit what is here."""
    fingerprint = await service.imported(unified())
    for wanted in (fingerprint, fingerprint[:12], fingerprint[:1], "f" * 64, "xyz", "", "../x"):
        with pytest.raises(NotFound) as refusal:
            await _files(service, wanted, _GUEST)
        assert refusal.value.message == "Image not found"
        with pytest.raises(NotFound):
            await _read(service, wanted, _GUEST)


async def test_a_guest_has_what_is_public(service: Service) -> None:
    fingerprint = await service.imported(unified(), public=True)
    other = await service.imported(unified(**{"rootfs/other": b"x"}))

    assert (await _files(service, fingerprint[:12], _GUEST)).image.fingerprint == fingerprint
    assert hashlib.sha256(await _read(service, fingerprint, _GUEST)).hexdigest() == fingerprint
    offers = (await service.shares.ListOffers(pb.ListOffersRequest(project="default"))).offers
    assert [offer.image.fingerprint for offer in offers] == [fingerprint] != [other]


async def test_what_is_offered_has_the_hash_of_each_file(service: Service) -> None:
    """Kept beside the file: the second time nothing is read."""
    await service.imported(*_SPLIT, public=True)
    for _ in range(2):
        offers = (await service.shares.ListOffers(pb.ListOffersRequest(project="default"))).offers
        assert [file.sha256 for file in offers[0].files] == [hashlib.sha256(p).hexdigest() for p in _SPLIT]


async def test_a_piece_is_that_piece(service: Service) -> None:
    content = unified(**{"rootfs/big": bytes(range(256)) * 8192})
    fingerprint = await service.imported(content)
    for offset, length in ((0, 10), (700, 1 << 20), (len(content) - 3, 100), (len(content) + 1, 5), (5, 0)):
        found = await _read(service, fingerprint, pb.Reader(), offset=offset, length=length)
        assert found == content[offset : offset + length]
    with pytest.raises(Invalid, match="piece"):
        await _read(service, fingerprint, pb.Reader(), offset=-1)


# --- secrets -----------------------------------------------------------------------------------------


async def test_a_secret_opens_one_image_once(service: Service) -> None:
    fingerprint = await service.imported(unified())
    other = await service.imported(unified(**{"rootfs/other": b"x"}))
    secret = await _secret(service, fingerprint)
    reader = pb.Reader(is_guest=True, secret=secret)

    assert (await _files(service, fingerprint, reader)).image.fingerprint == fingerprint
    assert hashlib.sha256(await _read(service, fingerprint, reader)).hexdigest() == fingerprint

    for wanted in (other, fingerprint[:12]):
        with pytest.raises(NotFound):
            await _files(service, wanted, reader)
    service.tokens._clock = lambda: service.runner._clock() + 601
    with pytest.raises(NotFound):
        await _read(service, fingerprint, reader)


@pytest.mark.parametrize("guess", ["", "0" * 64, "é", "\0", "x" * 10000])
async def test_a_guessed_secret_opens_nothing(service: Service, guess: str) -> None:
    fingerprint = await service.imported(unified())
    secret = await _secret(service, fingerprint)
    for guessed in (guess, secret[:-1], f"{secret}0", secret.upper() + "x"):
        with pytest.raises(NotFound, match=r"^Image not found$"):
            await _files(service, fingerprint, pb.Reader(is_guest=True, secret=guessed))


async def test_a_secret_that_nobody_uses_ends(service: Service) -> None:
    """With its time, with its image, and when it is withdrawn."""
    fingerprint = await service.imported(unified())
    old, reader = await _secret(service, fingerprint), pb.Reader(is_guest=True)
    reader.secret = old
    service.tokens._clock = lambda: service.runner._clock() + 3601
    with pytest.raises(NotFound):
        await _files(service, fingerprint, reader)
    await service.tokens.sweep()
    assert service.runner.live_of("image.secret") == []

    service.tokens._clock = service.runner._clock
    reader.secret = await _secret(service, fingerprint)
    await service.delete(fingerprint)
    await service.imported(unified())
    with pytest.raises(NotFound):
        await _files(service, fingerprint, reader)

    reader.secret = await _secret(service, fingerprint)
    for id in service.runner.live_of("image.secret"):
        await service.runner.cancel(id)
    with pytest.raises(NotFound):
        await _files(service, fingerprint, reader)


async def test_a_transfer_that_broke_goes_on_with_its_secret(service: Service) -> None:
    content = unified(**{"rootfs/big": bytes(range(256)) * 8192})
    fingerprint = await service.imported(content)
    reader = pb.Reader(is_guest=True, secret=await _secret(service, fingerprint))

    first = await _read(service, fingerprint, reader, length=1000)

    assert first + await _read(service, fingerprint, reader, offset=1000) == content


async def test_what_is_sent_is_sent_to_its_end_though_it_is_deleted(service: Service) -> None:
    content = unified(**{"rootfs/big": bytes(range(256)) * 65536})
    fingerprint = await service.imported(content)
    wanted = pb.ExportFileRequest(
        project="default", fingerprint=fingerprint, part=image_pb2.IMAGE_PART_UNIFIED, length=1 << 40
    )
    found = b""
    async for message in service.shares.ExportFile(wanted):
        if not found:
            await service.delete(fingerprint)
        found += message.chunk

    assert found == content
    with pytest.raises(NotFound):
        await _read(service, fingerprint, pb.Reader())


async def test_an_upload_secret_is_good_for_one_upload_of_that_image(service: Service) -> None:
    fingerprint = hashlib.sha256(unified()).hexdigest()
    alias = image_pb2.Alias(name="a/b", description="d")
    asked = pb.AwaitImageRequest(project="default", fingerprint=fingerprint, public=True, aliases=[alias])
    operation = (await service.shares.AwaitImage(asked)).operation
    wanted = pb.TakeAwaitedRequest(
        project="default",
        fingerprint=fingerprint,
        secret=str(service.runner.get(operation.id).metadata["secret"]),
    )
    for field, value in (("project", "other"), ("fingerprint", "f" * 64), ("secret", "x"), ("secret", "")):
        wrong = pb.TakeAwaitedRequest()
        wrong.CopyFrom(wanted)
        setattr(wrong, field, value)
        with pytest.raises(Forbidden, match="not authorized"):
            await service.shares.TakeAwaited(wrong)

    header = (await service.shares.TakeAwaited(wanted)).header

    assert header.public and header.expected_fingerprint == fingerprint and len(header.wait_secret) == 64
    assert [(a.name, a.description) for a in header.aliases] == [("a/b", "d")]
    with pytest.raises(Forbidden):
        await service.shares.TakeAwaited(wanted)
    with pytest.raises(Invalid, match="full fingerprint"):
        await service.shares.AwaitImage(pb.AwaitImageRequest(project="default", fingerprint="abc"))


# --- pushes ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "target")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + datetime.timedelta(days=1))
    pem = serialization.Encoding.PEM
    (folder / "crt").write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(pem))
    plain = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "key").write_bytes(key.private_bytes(pem, *plain))
    return folder / "crt", folder / "key"


@pytest.fixture
def there(pair: tuple[Path, Path]) -> Iterator[ImageTarget]:
    with target(*pair) as found:
        yield found


async def _push(service: Service, fingerprint: str, there: ImageTarget, **more: Any) -> Operation:
    wanted = {"target": there.url, "certificate": there.certificate, "secret": "s3", **more}
    asked = pb.PushImageRequest(project="default", fingerprint=fingerprint, **wanted)
    return await service.runner.wait((await service.shares.PushImage(asked)).operation.id)


async def test_an_image_is_pushed_whole(service: Service, there: ImageTarget) -> None:
    content = unified()
    fingerprint = await service.imported(content)

    done = await _push(service, fingerprint, there, target_project="a b")

    assert done.state == SUCCEEDED, done.error_message
    headers, body = there.came[0]
    assert body == content and headers["X-LXD-fingerprint"] == fingerprint and headers["X-LXD-secret"] == "s3"
    assert "/1.0/images?project=a+b" in there.paths and there.paths[-1].endswith("secret=s&timeout=30")


async def test_a_split_image_is_pushed_as_a_form(service: Service, there: ImageTarget) -> None:
    fingerprint = await service.imported(*_SPLIT)

    done = await _push(service, fingerprint, there)

    assert done.state == SUCCEEDED, done.error_message
    headers, body = there.came[0]
    boundary = headers["Content-Type"].rpartition("boundary=")[2].encode()
    assert [part.partition(b"\r\n\r\n")[2] for part in body.split(b"--" + boundary)[1:3]] == [
        part + b"\r\n" for part in _SPLIT
    ]


@pytest.mark.parametrize(
    ("mood", "why"),
    [
        ("refuses", "not authorized"),
        ("fails", r"no room \[2J left"),
        ("dies", "cannot be read"),
        ("noise", "does not answer as a server"),
        ("elsewhere", "in which operation"),
        ("odd", "how the upload went"),
    ],
)
async def test_a_target_that_does_not_take_it_is_told_of(
    service: Service, there: ImageTarget, mood: str, why: str
) -> None:
    there.mood = mood
    fingerprint = await service.imported(unified(**{"rootfs/big": bytes(range(256)) * 65536}))

    done = await _push(service, fingerprint, there)

    assert done.state == FAILED
    with pytest.raises(PodiumError, match=why):
        raise done.error() or AssertionError
    assert (await service.get(fingerprint)).fingerprint == fingerprint


async def test_a_target_is_the_one_that_was_named(service: Service, there: ImageTarget) -> None:
    """No other certificate, nothing but TLS, and not where it sends us: the image is not for those."""
    fingerprint = await service.imported(unified())
    there.redirect_to = "https://127.0.0.1:1/1.0"
    assert (await _push(service, fingerprint, there)).state == FAILED
    there.redirect_to = ""
    mine = (await _push(service, fingerprint, there, certificate="")).error()
    assert mine and "certificate" in mine.message
    wrong = there.certificate.replace("MII", "MIJ", 1)
    assert (await _push(service, fingerprint, there, certificate=wrong)).state == FAILED
    for url in ("http://127.0.0.1:1", "file:///etc/passwd", "", "127.0.0.1"):
        with pytest.raises(Invalid, match="https address"):
            await _push(service, fingerprint, there, target=url)
    assert there.came == []


async def test_a_confined_caller_pushes_to_no_address_inside(service: Service, there: ImageTarget) -> None:
    fingerprint = await service.imported(unified())
    set_identity(Identity("mallory", "tls", "@", projects=("default",)))
    try:
        for host in ("127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "169.254.169.254", "0"):
            done = await _push(service, fingerprint, there, target=f"https://{host}:{there.port}")
            error = done.error()
            assert error and error.reason == "INSIDE", host
    finally:
        set_identity(Identity())
    assert there.paths == []


async def test_a_push_can_be_ended(service: Service, there: ImageTarget) -> None:
    there.mood = "sleeps"
    fingerprint = await service.imported(unified())
    asked = pb.PushImageRequest(
        project="default",
        fingerprint=fingerprint,
        target=there.url,
        certificate=there.certificate,
        secret="s",
    )
    id = (await service.shares.PushImage(asked)).operation.id
    while "/1.0/images" not in there.paths:
        assert not service.runner.get(id).is_final
        await asyncio.sleep(0.02)

    await service.runner.cancel(id)

    assert (await service.runner.wait(id)).state == CANCELLED
