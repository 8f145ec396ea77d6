"""Certificates: who is trusted, and how a stranger becomes so."""

from __future__ import annotations

import base64
from typing import Any

from aiohttp import web

from core.errors import Invalid, Unsupported
from gateway.lxd import envelope
from gateway.lxd import request as req
from gateway.lxd.nouns import Noun
from gateway.lxd.views.others import certificate_json
from gateway.lxd.views.server import addresses
from protos.podium.cluster.v1 import cluster_pb2 as pb


async def _get(request: web.Request) -> Any:
    reply = await req.backend(request).trust.GetCertificate(
        pb.GetCertificateRequest(fingerprint=req.name(request))
    )
    return reply.certificate


_CERTIFICATE = Noun(
    "/1.0/certificates",
    _get,
    certificate_json,
    lambda c: (certificate_json(c),),
    name=lambda c: str(c.fingerprint),
)
get_certificate = _CERTIFICATE.one


async def list_certificates(request: web.Request) -> web.Response:
    caller = request["caller"]
    reply = await req.backend(request).trust.ListCertificates(pb.ListCertificatesRequest())
    found = [c for c in reply.certificates if caller.is_admin or c.fingerprint == caller.identity.username]
    return _CERTIFICATE.listing(request, found)


async def post_certificate(request: web.Request) -> web.Response:
    data, caller, backend = await req.body(request), request["caller"], req.backend(request)
    if caller.is_admin and req.flag(data, "token"):
        return await _token(request, data)
    text = req.text(data, "certificate")
    if caller.is_admin and (text or not caller.certificate_der):
        reply = await backend.trust.AddCertificate(
            pb.AddCertificateRequest(
                certificate=text,
                name=req.text(data, "name"),
                type=req.text(data, "type"),
                restricted=req.flag(data, "restricted"),
                projects=req.texts(data, "projects"),
            )
        )
    elif caller.trusted:
        raise Invalid("TRUSTED", "Client is already trusted")
    else:
        der = caller.certificate_der or certificate_bytes(text)
        reply = await backend.trust.RedeemTrust(
            pb.RedeemTrustRequest(
                certificate_der=der,
                secret=req.text(data, "password") or req.text(data, "trust_token"),
                name=req.text(data, "name"),
            )
        )
    await backend.certificates.catch_up(reply.certificate.revision)
    return _CERTIFICATE.created(reply.certificate.fingerprint)


def certificate_bytes(text: str) -> bytes:
    """Return the DER of a base64 text that anybody may have sent. Raises: Invalid."""
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise Invalid("BAD_CERTIFICATE", "certificate must be base64 of an X.509 certificate") from None


async def _token(request: web.Request, data: dict[str, Any]) -> web.Response:
    backend = req.backend(request)
    if (req.text(data, "type") or "client") != "client":
        raise Invalid("BAD_TYPE", "Tokens can only be issued for type client")
    listening = addresses(backend.settings.https_address)
    if not listening:
        raise Invalid("NOT_LISTENING", "Can't issue token when server isn't listening on network")
    reply = await backend.trust.CreateTrustToken(
        pb.CreateTrustTokenRequest(
            name=req.text(data, "name"),
            restricted=req.flag(data, "restricted"),
            projects=req.texts(data, "projects"),
            addresses=listening,
        )
    )
    return envelope.accepted(backend.accepted(reply.operation))


async def put_certificate(request: web.Request) -> web.Response:
    data, old = await _CERTIFICATE.change(request)
    patching = request.method == "PATCH"
    if req.text(data, "certificate") not in ("", old.certificate):
        raise Unsupported("NO_RENEWAL", "Replacing a certificate is not supported; add the new one")
    changed = pb.Certificate(
        fingerprint=old.fingerprint,
        name=req.text(data, "name") or old.name,
        type=req.text(data, "type") or old.type,
        restricted=req.flag(data, "restricted") if "restricted" in data or not patching else old.restricted,
        projects=req.texts(data, "projects") if "projects" in data or not patching else old.projects,
    )
    backend = req.backend(request)
    reply = await backend.trust.UpdateCertificate(
        pb.UpdateCertificateRequest(certificate=changed, expected_revision=old.revision)
    )
    await backend.certificates.catch_up(reply.certificate.revision)
    return envelope.empty()


async def delete_certificate(request: web.Request) -> web.Response:
    await req.backend(request).trust.DeleteCertificate(
        pb.DeleteCertificateRequest(fingerprint=req.name(request))
    )
    return envelope.empty()
