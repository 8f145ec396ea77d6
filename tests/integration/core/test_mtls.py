"""Real services over real mTLS: who is let in, whom they believe, and what crosses the wire."""

from __future__ import annotations

import dataclasses
import datetime
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from core.errors import NotFound, Unavailable
from core.records import Presence
from core.rpc.client import member_channel
from core.rpc.identity import METADATA_KEY, Identity, current_identity, set_identity
from core.rpc.members import dial
from core.rpc.server import serve
from core.rpc.tls import MEMBER, id_of
from core.settings import Settings
from core.state import keys
from core.state.memory import MemoryStore
from core.state.store import Txn
from protos.podium.image.v1 import image_pb2 as pb
from protos.podium.image.v1 import image_pb2_grpc as rpc
from services.cluster.authority import Authority, Pair, Wanted, issue
from tests.contract.conftest import free_port

SERVICE = "podium.image.v1.ImageService"


class Servicer(rpc.ImageServiceServicer):
    async def GetImage(self, request: pb.GetImageRequest, context: Any) -> pb.GetImageResponse:
        if request.project == "none":
            raise NotFound("NO_IMAGE", "Image not found", about="x")
        caller = current_identity()
        return pb.GetImageResponse(image=pb.Image(project=caller.username, filename=caller.protocol))


@dataclasses.dataclass
class Cluster:
    """Members alpha (serving) and beta (calling), whose certificates are of one CA."""

    alpha: Settings
    beta: Settings
    address: str

    def call_as(self, pair: Pair | None, *, name: str = "alpha", ca: bytes = b"") -> grpc.aio.Channel:
        """A third-party client's channel with *pair*."""
        ca = ca or (self.alpha.tls_dir / "ca.crt").read_bytes()
        pieces = (pair.key, pair.certificate) if pair else (None, None)
        options = [("grpc.ssl_target_name_override", name)]
        return grpc.aio.secure_channel(self.address, grpc.ssl_channel_credentials(ca, *pieces), options)

    def member_pair(self) -> Pair:
        folder = self.beta.tls_dir
        return Pair((folder / "member.crt").read_bytes(), (folder / "member.key").read_bytes())

    def ca(self) -> Pair:
        folder = self.alpha.tls_dir
        return Pair((folder / "ca.crt").read_bytes(), (folder / "ca.key").read_bytes())


def a_member(folder: Path, name: str, port: int, ca: Path | None = None) -> Settings:
    folder.mkdir()
    env = {"PODIUM_DIR": str(folder), "PODIUM_MEMBER": name, "PODIUM_RPC": f"127.0.0.1:{port}"}
    settings = Settings.from_env(env)
    settings.run_dir.mkdir()
    settings.tls_dir.mkdir()
    for kind in ("crt", "key") if ca else ():
        (settings.tls_dir / f"ca.{kind}").write_bytes((ca / f"ca.{kind}").read_bytes())
    Authority(settings.tls_dir, "").ensure(name)
    return settings


def register(server: grpc.aio.Server) -> list[str]:
    rpc.add_ImageServiceServicer_to_server(Servicer(), server)
    return [SERVICE]


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    alpha = a_member(tmp_path / "alpha", "alpha", free_port())
    beta = a_member(tmp_path / "beta", "beta", free_port(), alpha.tls_dir)
    found: list[str] = []

    async def announce(address: str) -> None:
        found.append(address)

    server = await serve(alpha, "image", register, announce=announce)
    yield Cluster(alpha, beta, found[0])
    await server.stop(0)


async def ask(line: grpc.aio.Channel, claimed: str = "") -> pb.Image:
    stub: Any = rpc.ImageServiceStub(line)
    metadata = [(METADATA_KEY, claimed)] if claimed else None
    try:
        return (await stub.GetImage(pb.GetImageRequest(), metadata=metadata, timeout=5)).image
    finally:
        await line.close()


async def test_a_member_passes_on_for_whom_it_calls(cluster: Cluster) -> None:
    """It finds the other by what that one wrote to the state."""
    store = MemoryStore()
    await store.commit(Txn().put(keys.presence("alpha", "image"), Presence(address=cluster.address)))
    line = await dial(store, cluster.beta, member="alpha", service="image")
    set_identity(Identity("alice", "tls", "192.0.2.1:5"))

    reply = await rpc.ImageServiceStub(line).GetImage(pb.GetImageRequest())

    assert (reply.image.project, reply.image.filename) == ("alice", "tls")
    with pytest.raises(NotFound) as caught:
        await rpc.ImageServiceStub(line).GetImage(pb.GetImageRequest(project="none"))
    assert (caught.value.reason, caught.value.about) == ("NO_IMAGE", "x")
    await line.close()


async def test_a_member_that_is_not_there_is_named(cluster: Cluster) -> None:
    with pytest.raises(Unavailable, match="image service of member 'gamma'"):
        await dial(MemoryStore(), cluster.beta, member="gamma", service="image")


async def test_a_client_certificate_is_itself_the_caller(cluster: Cluster) -> None:
    """What it claims of others is not heard: only members may speak for somebody."""
    pair = Authority(cluster.alpha.tls_dir, "").client("alice")
    claimed = Identity("root", "unix", "@").encode()

    image = await ask(cluster.call_as(pair), claimed)

    fingerprint = x509.load_pem_x509_certificate(pair.certificate).fingerprint(SHA256())
    assert (image.project, image.filename) == (fingerprint.hex(), "tls")


async def test_metadata_that_is_no_identity_is_refused(cluster: Cluster) -> None:
    """Not taken for the all-powerful internal one."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await ask(cluster.call_as(cluster.member_pair()), "{nonsense")
    assert caught.value.code() == grpc.StatusCode.PERMISSION_DENIED


def of_another_ca(cluster: Cluster) -> Pair:
    return issue(Wanted("beta", uri("beta")), issue(Wanted("Podium CA", is_ca=True)))


def expired(cluster: Cluster) -> Pair:
    return issue(Wanted("beta", uri("beta"), lifetime=datetime.timedelta(minutes=-1)), cluster.ca())


def signed_by_itself(cluster: Cluster) -> Pair:
    return issue(Wanted("beta", uri("beta")))


def signed_by_a_member(cluster: Cluster) -> Pair:
    return issue(Wanted("beta", uri("beta")), cluster.member_pair())


def none(cluster: Cluster) -> None:
    return None


async def test_a_certificate_that_is_good_is_let_in(cluster: Cluster) -> None:
    """What the bad ones below lack, and nothing else: the control of the next test."""
    await ask(cluster.call_as(issue(Wanted("beta", uri("beta")), cluster.ca())))


def uri(name: str) -> list[x509.GeneralName]:
    return [x509.UniformResourceIdentifier(id_of(MEMBER, name))]


@pytest.mark.parametrize("bad", [of_another_ca, expired, signed_by_itself, signed_by_a_member, none])
async def test_who_has_no_good_certificate_is_cut_off(
    cluster: Cluster, bad: Callable[[Cluster], Pair | None]
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await ask(cluster.call_as(bad(cluster)))
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE


async def test_a_server_that_is_another_member_is_not_called(cluster: Cluster) -> None:
    """An address that somebody else has taken over gets nothing."""
    line = member_channel(cluster.beta, "image", member="gamma", address=cluster.address)
    with pytest.raises(Unavailable):
        await ask_ours(line)


async def ask_ours(line: grpc.aio.Channel) -> None:
    stub: Any = rpc.ImageServiceStub(line)
    try:
        await stub.GetImage(pb.GetImageRequest(), timeout=5)
    finally:
        await line.close()


async def test_a_client_certificate_cannot_serve(cluster: Cluster, tmp_path: Path) -> None:
    """Who may call as an operator must not be able to pose as a member."""
    false = a_member(tmp_path / "false", "false", free_port(), cluster.alpha.tls_dir)
    pair = Authority(cluster.alpha.tls_dir, "").client("alpha")
    (false.tls_dir / "member.crt").write_bytes(pair.certificate)
    (false.tls_dir / "member.key").write_bytes(pair.key)
    server = await serve(false, "image", register)
    line = member_channel(cluster.beta, "image", member="alpha", address=false.rpc_address("image"))
    with pytest.raises(Unavailable):
        await ask_ours(line)
    await server.stop(0)


async def test_health_and_reflection_answer_over_mtls(cluster: Cluster) -> None:
    line = cluster.call_as(Authority(cluster.alpha.tls_dir, "").client("alice"))

    reply = await health_pb2_grpc.HealthStub(line).Check(health_pb2.HealthCheckRequest(service=SERVICE))
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    call = reflection_pb2_grpc.ServerReflectionStub(line).ServerReflectionInfo(iter([request]))
    listed = (await anext(aiter(call))).list_services_response.service

    assert reply.status == health_pb2.HealthCheckResponse.SERVING
    assert SERVICE in {service.name for service in listed}
    await line.close()


def test_the_listener_speaks_tls_1_3(cluster: Cluster) -> None:
    context = ssl.create_default_context(cafile=str(cluster.alpha.tls_dir / "ca.crt"))
    context.load_cert_chain(cluster.beta.tls_dir / "member.crt", cluster.beta.tls_dir / "member.key")
    context.set_alpn_protocols(["h2"])
    host, _, port = cluster.address.rpartition(":")

    with (
        socket.create_connection((host, int(port)), 5) as plain,
        context.wrap_socket(plain, server_hostname="alpha") as tls,
    ):
        assert tls.version() == "TLSv1.3"


async def test_a_port_that_is_taken_is_not_fatal(cluster: Cluster, tmp_path: Path) -> None:
    """The unix socket still serves this member."""
    taken = dataclasses.replace(cluster.beta, rpc_base=cluster.alpha.rpc_base)
    told: list[str] = []

    async def announce(address: str) -> None:
        told.append(address)

    server = await serve(taken, "image", register, announce=announce)

    assert told == []
    assert taken.service_socket("image").exists()
    await server.stop(0)
