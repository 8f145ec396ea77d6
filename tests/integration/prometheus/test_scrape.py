"""Debian's Prometheus scrapes every process and the instance metrics; promtool approves of them."""

from __future__ import annotations

import subprocess
import urllib.request

import pytest

from bench.client import Side
from core.settings import SERVICES
from tests.faults.harness import Victim, wait_for
from tests.integration.prometheus.conftest import Prometheus

NAME = "prometheus-guest"


def promtool(*arguments: str, text: str = "") -> str:
    """Run promtool; returns its complaints, which go to either stream."""
    done = subprocess.run(["promtool", *arguments], input=text, capture_output=True, text=True, timeout=30)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def plain(side: Side, path: str) -> str:
    connection = side.connect()
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        assert answer.status == 200
        return answer.read().decode()
    finally:
        connection.close()


@pytest.mark.parametrize("service", SERVICES)
def test_metrics_of_each_process_pass_promtool(victim: Victim, service: str) -> None:
    url = f"http://127.0.0.1:{victim.settings().metrics_port(service)}/metrics"
    with urllib.request.urlopen(url, timeout=10) as reply:
        assert promtool("check", "metrics", text=reply.read().decode()) == ""


def test_instance_metrics_pass_promtool_and_name_the_instance(victim: Victim) -> None:
    victim.side.lxc("launch", victim.image, NAME)
    try:
        text = plain(victim.side, "/1.0/metrics")
    finally:
        victim.side.delete_all(NAME)
    lines = [line for line in text.splitlines() if f'name="{NAME}"' in line]
    assert any(line.startswith("lxd_memory_") for line in lines)
    assert any(line.startswith("lxd_cpu_seconds_total") for line in lines)
    assert promtool_errors(text) == []


def promtool_errors(text: str) -> list[str]:
    """promtool's complaints, without those about names that LXD chose and dashboards rely on."""
    said = promtool("check", "metrics", text=text).splitlines()
    return [line for line in said if not line.startswith("lxd_")]


def test_prometheus_accepts_the_configuration_and_finds_every_target_up(prometheus: Prometheus) -> None:
    assert promtool("check", "config", str(prometheus.config)) == ""
    expected = dict.fromkeys([*SERVICES, "instances"], "up")
    wait_for(lambda: prometheus.health() == expected, 20, f"all targets up, got {prometheus.health()}")


def test_prometheus_stores_a_sample_of_a_running_instance(victim: Victim, prometheus: Prometheus) -> None:
    victim.side.lxc("launch", victim.image, NAME)
    try:
        query = f"query?query=lxd_procs_total{{name=%22{NAME}%22}}"
        wait_for(lambda: bool(prometheus.get(query)["result"]), 20, "a sample")
    finally:
        victim.side.delete_all(NAME)
