"""The real application over real TLS 1.3: strangers, confined callers, unknown paths. No services run."""

from __future__ import annotations

import datetime
import hashlib
import json
import ssl
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from core.operations.operation import Operation
from core.records import Certificate, Project
from core.settings import Settings
from core.state import keys
from core.state.memory import MemoryStore
from core.state.store import Txn
from gateway.backend import Backend
from gateway.lxd.routes import table
from gateway.protocol import Runner
from gateway.tls import server_context
from gateway.web import application


def _pair(folder: Path, name: str) -> str:
    """Write name.crt and name.key; return the fingerprint."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
    made = builder.sign(key, hashes.SHA256())
    (folder / f"{name}.crt").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / f"{name}.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return hashlib.sha256(made.public_bytes(serialization.Encoding.DER)).hexdigest()


async def _get(
    folder: Path, port: int, path: str, client: str = "", *, method: str = "GET", origin: str = ""
) -> tuple[int, dict[str, Any]]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if client:
        context.load_cert_chain(folder / f"{client}.crt", folder / f"{client}.key")
    url = f"https://127.0.0.1:{port}{path}"
    headers = {"Origin": origin} if origin else {}
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, url, ssl=context, headers=headers) as answer,
    ):
        return answer.status, await answer.json()


async def _cannot_tell_projects_apart(folder: Path, port: int) -> None:
    """CVE-2025-54290: by whatever route, a project of others looks as one that is not there."""
    for method, path, _, _ in table():
        if method == "GET" and path.count("/") < 4 and path != "/1.0/resources":
            answers = [
                await _get(folder, port, f"{path}?project={name}", "confined") for name in ("other", "nosuc")
            ]
            shown = [json.dumps(answer).replace("nosuc", "other") for answer in answers]
            assert shown[0] == shown[1], path


@pytest.mark.asyncio
async def test_a_confined_certificate_reaches_its_project_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "tls"
    folder.mkdir()
    _pair(folder, "server")
    fingerprint = _pair(folder, "confined")
    store = MemoryStore()
    txn = Txn()
    for name in ("web", "default", "other"):
        txn.put(keys.project(name), Project(name))
    txn.put(
        keys.certificate(fingerprint),
        Certificate(fingerprint=fingerprint, type="client", restricted=True, projects=("web",)),
    )
    for id, project in (("o-web", "web"), ("o-default", "default"), ("o-token", "")):
        txn.put(keys.operation(id), Operation(id=id, project=project, kind="x", state="running"))
    about = {"secret": "right"}
    txn.put(keys.operation("o-secret"), Operation(id="o-secret", kind="x", state="running", metadata=about))
    await store.commit(txn)
    backend = Backend(Settings.from_env({"PODIUM_DIR": str(tmp_path)}), store)
    await backend.start()
    runner = Runner(application(backend))
    await runner.setup()
    context = server_context(folder / "server.crt", folder / "server.key")
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    port = runner.addresses[0][1]
    try:
        codes = {
            path: (await _get(folder, port, path, "confined"))[0]
            for path in (
                "/1.0/operations/o-web",
                "/1.0/operations/o-default",
                "/1.0/operations/o-token",
                "/1.0/operations/o-web/wait?timeout=nan",
                "/1.0/instances",
                "/1.0/instances?project=web&all-projects=true",
                "/1.0/projects/default",
                "/1.0/nothing",
            )
        }
        assert list(codes.values()) == [200, 404, 404, 400, 403, 403, 403, 404]
        _, listed = await _get(folder, port, "/1.0/operations?project=web", "confined")
        assert listed["metadata"] == {"running": ["/1.0/operations/o-web"]}
        assert (await _get(folder, port, "/1.0/operations"))[0] == 403
        foreign = {"method": "DELETE", "origin": "https://evil.example"}
        code, reply = await _get(folder, port, "/1.0/operations/o-web", "confined", **foreign)
        assert code == 403 and "another site" in reply["error"]
        await _cannot_tell_projects_apart(folder, port)
        _, stranger = await _get(folder, port, "/1.0")
        assert stranger["metadata"]["auth"] == "untrusted"
        assert "environment" not in stranger["metadata"]
        # Beyond ASCII too, which cannot be compared as texts.
        for secret in ("", "wrong", "%C3%A9", "%ff"):
            assert (await _get(folder, port, f"/1.0/operations/o-secret/wait?secret={secret}"))[0] == 403
    finally:
        await runner.cleanup()
        await backend.stop()
