"""A real Prometheus, pointed at a running Podium, and a client certificate for it."""

from __future__ import annotations

import base64
import datetime
import json
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from core.settings import SERVICES
from tests.contract.conftest import free_port
from tests.faults.conftest import *  # noqa: F403  the fixtures `podium` and `victim`
from tests.faults.harness import Victim


@dataclass(frozen=True)
class Prometheus:
    """A running Prometheus and its configuration file."""

    address: str
    config: Path

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://{self.address}/api/v1/{path}", timeout=5) as reply:
            return json.load(reply)["data"]

    def health(self) -> dict[str, str]:
        """Job of each target -> "up", or the error of its last scrape."""
        targets = self.get("targets")["activeTargets"]
        return {t["labels"]["job"]: t["lastError"] or t["health"] for t in targets}


@pytest.fixture
def metrics_certificate(victim: Victim, tmp_path: Path) -> Iterator[Path]:
    """Folder with cert.pem and key.pem that Podium trusts for metrics."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "prometheus-test")])
    now = datetime.datetime.now(datetime.UTC)
    built = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    built = built.serial_number(x509.random_serial_number()).not_valid_before(now)
    certificate = built.not_valid_after(now + datetime.timedelta(days=1)).sign(key, hashes.SHA256())
    encoding, plain = serialization.Encoding, serialization.NoEncryption()
    (tmp_path / "cert.pem").write_bytes(certificate.public_bytes(encoding.PEM))
    pkcs8 = serialization.PrivateFormat.PKCS8
    (tmp_path / "key.pem").write_bytes(key.private_bytes(encoding.PEM, pkcs8, plain))
    trusted = base64.b64encode(certificate.public_bytes(encoding.DER)).decode()
    body = {"type": "metrics", "name": "prometheus-test", "certificate": trusted}
    answer = victim.side.request("POST", "/1.0/certificates", body)
    assert answer["type"] == "sync", answer
    yield tmp_path
    victim.side.request("DELETE", f"/1.0/certificates/{certificate.fingerprint(hashes.SHA256()).hex()}")


@pytest.fixture
def prometheus(victim: Victim, metrics_certificate: Path, tmp_path: Path) -> Iterator[Prometheus]:
    config = tmp_path / "prometheus.yml"
    config.write_text(yaml.safe_dump(scrape_config(victim, metrics_certificate)))
    found = Prometheus(f"127.0.0.1:{free_port()}", config)
    argv = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={tmp_path / 'data'}"]
    argv.append(f"--web.listen-address={found.address}")
    log = (tmp_path / "prometheus.log").open("wb")
    process = subprocess.Popen(argv, stdout=log, stderr=log)
    try:
        wait_until_ready(found)
        yield found
    finally:
        process.terminate()
        process.wait(20)


def scrape_config(victim: Victim, certificate: Path) -> dict[str, Any]:
    settings = victim.settings()
    jobs: list[dict[str, Any]] = [
        {"job_name": s, "static_configs": [{"targets": [f"127.0.0.1:{settings.metrics_port(s)}"]}]}
        for s in SERVICES
    ]
    port = settings.https_address.rpartition(":")[2]
    tls = {"cert_file": f"{certificate}/cert.pem", "key_file": f"{certificate}/key.pem"}
    instances = {
        "job_name": "instances",
        "scheme": "https",
        "metrics_path": "/1.0/metrics",
        "static_configs": [{"targets": [f"127.0.0.1:{port}"]}],
        "tls_config": {**tls, "insecure_skip_verify": True},
    }
    return {"global": {"scrape_interval": "1s"}, "scrape_configs": [*jobs, instances]}


def wait_until_ready(prometheus: Prometheus, timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            urllib.request.urlopen(f"http://{prometheus.address}/-/ready", timeout=2).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
