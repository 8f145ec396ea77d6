"""`podium config trust`: who may use this server over the network."""

from __future__ import annotations

import base64
import json
import os
import ssl
from typing import Any

from cli import tables
from cli.call import Call
from cli.failure import CliError, Refused
from cli.kinds import KINDS, arranged, document, edit_document, place
from cli.server import Server, url
from cli.texts import long_time

_CLIENT = KINDS["client"]


def listing(call: Call) -> None:
    found = call.server.get(url("certificates"), recursion="1")
    rows = [
        [
            item["type"],
            item["name"],
            *_dates(item),
        ]
        for item in found
    ]
    header = ("TYPE", "NAME", "COMMON NAME", "FINGERPRINT", "ISSUE DATE", "EXPIRY DATE")
    tables.show(call.text("format"), header, rows, [arranged(_CLIENT, item) for item in found])


def _dates(item: dict[str, Any]) -> list[str]:
    """Return common name, short fingerprint and both dates of a certificate."""
    from cryptography import x509

    certificate = x509.load_pem_x509_certificate(item["certificate"].encode())
    names = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    dates = (certificate.not_valid_before_utc, certificate.not_valid_after_utc)
    shown = [long_time(at.strftime("%Y-%m-%dT%H:%M:%SZ")) for at in dates]
    return [str(names[0].value) if names else "", item["fingerprint"][:12], *shown]


def show(call: Call) -> None:
    print(document(_CLIENT, call.server.get(place(_CLIENT, call.words[0]))), end="")


def edit(call: Call) -> None:
    edit_document(call.server, _CLIENT, call.words[0])


def add(call: Call) -> None:
    body: dict[str, Any] = {"name": call.text("name"), "type": call.text("type", "client")}
    body["restricted"] = call.on("restricted") or bool(call.texts("projects"))
    body["projects"] = [name for text in call.texts("projects") for name in text.split(",")]
    if call.words:
        path = call.words[0]
        body["name"] = body["name"] or os.path.basename(path)
        call.server.send("POST", url("certificates"), body | {"certificate": _certificate(path)})
        return
    reply = call.server.begin("POST", url("certificates"), body | {"token": True})
    name = body["name"]
    print(f"Client {name} certificate add token:")
    print(token_of(reply["metadata"]["metadata"]))


def token_of(metadata: dict[str, Any]) -> str:
    """Return what `lxc remote add` takes: the base64 of a small JSON object.

    Source: lxd 5.0.2, shared/api/certificate.go, CertificateAddToken.
    """
    request = metadata["request"]
    token = {
        "client_name": request["name"],
        "fingerprint": metadata["fingerprint"],
        "addresses": metadata["addresses"],
        "secret": metadata["secret"],
        "expires_at": metadata.get("expiresAt") or "0001-01-01T00:00:00Z",
    }
    return base64.b64encode(json.dumps(token, separators=(",", ":")).encode()).decode()


def _certificate(path: str) -> str:
    """Return the base64 DER of a PEM file. Raises: CliError."""
    try:
        with open(path) as file:
            return base64.b64encode(ssl.PEM_cert_to_DER_cert(file.read().strip())).decode()
    except (OSError, ValueError) as exc:
        raise CliError("the certificate cannot be read", str(exc), "openssl x509 -in FILE -noout") from exc


def remove(call: Call) -> None:
    call.server.send("DELETE", url("certificates", call.words[0]))


def tokens(call: Call) -> None:
    rows, shown = [], []
    for operation in _token_operations(call.server):
        name, token = operation["metadata"]["request"]["name"], token_of(operation["metadata"])
        expires = str(operation["metadata"].get("expiresAt") or "")
        rows.append([name, token, long_time(expires)])
        shown.append({"ClientName": name, "Token": token, "ExpiresAt": expires})
    tables.show(call.text("format"), ("NAME", "TOKEN", "EXPIRES AT"), rows, shown)


def _token_operations(server: Server) -> list[dict[str, Any]]:
    groups = server.get(url("operations"), recursion="1", project="default")
    found = [item for group in groups.values() for item in group]
    return [item for item in found if item["class"] == "token" and item["status_code"] == 103]


def revoke(call: Call) -> None:
    name = call.words[0]
    for operation in _token_operations(call.server):
        if operation["metadata"]["request"]["name"] == name:
            call.server.send("DELETE", url("operations", operation["id"]))
            print(f"Certificate add token for {name} deleted")
            return
    raise Refused(404, f"Token not found: there is none for {name}")
