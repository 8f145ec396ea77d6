"""compose.yaml runs what the supervisor runs, confined the same way, and Prometheus finds all of it."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from core.settings import SERVICES, Settings
from deploy.compose.enter import Hierarchy, hierarchies
from deploy.compose.image import packages
from deploy.privileges import ROOT, confined
from deploy.supervisor import Program, programs

SETTINGS = Settings.from_env({})
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
PROGRAMS = {program.name: program for program in programs(SETTINGS)}
# What only containers need: a holder of the network, the supervisor's own first step, and a scraper.
ONLY_HERE = {"pod", "bootstrap", "prometheus"}


def argv_of(program: Program) -> list[str]:
    return list(program.argv) if program.name == "etcd" else ["python3", *program.argv]


def test_the_containers_are_the_supervisors_programs() -> None:
    """A process added to one and forgotten in the other would be missing for half of the users."""
    assert set(COMPOSE) - ONLY_HERE == set(PROGRAMS)


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_container_runs_the_supervisors_command(name: str) -> None:
    """Flags and modules are the same; what comes before them only sets the process up."""
    argv = argv_of(PROGRAMS[name])

    command = [word.replace("$$", "$") for word in COMPOSE[name]["command"]]
    assert command[-len(argv) :] == argv


@pytest.mark.parametrize("name", [n for n, p in PROGRAMS.items() if p.caps == ()])
def test_a_program_without_privileges_has_none_in_its_container(name: str) -> None:
    service = COMPOSE[name]

    assert service["user"] == "podium"
    assert service["cap_drop"] == ["ALL"] and "cap_add" not in service
    assert service["security_opt"] == ["no-new-privileges=true"]


@pytest.mark.parametrize("name", [n for n, p in PROGRAMS.items() if p.caps])
def test_capabilities_are_handed_over_as_the_supervisor_does(name: str, monkeypatch: Any) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    program = PROGRAMS[name]
    assert program.caps

    assert COMPOSE[name]["command"] == confined(argv_of(program), program.caps, SETTINGS.group)
    assert {cap.upper() for cap in program.caps} < set(COMPOSE[name]["cap_add"])


def test_only_the_runtime_may_do_more() -> None:
    """One container mounts and makes namespaces; and not even it is `privileged`."""
    assert [n for n, s in COMPOSE.items() if "SYS_ADMIN" in s.get("cap_add", ())] == ["runtime"]
    assert not [n for n, s in COMPOSE.items() if "privileged" in s]


def test_every_container_shares_the_pods_network() -> None:
    """The member's addresses are those of a host: loopback for etcd and metrics, one set of bridges."""
    assert {n for n, s in COMPOSE.items() if s.get("network_mode") != "service:pod"} == {"pod"}
    assert COMPOSE["pod"]["ports"][0].endswith(f":{SETTINGS.https_address.rpartition(':')[2]}")


def test_prometheus_scrapes_every_process() -> None:
    text = (ROOT / "deploy" / "compose" / "prometheus.yml").read_text()
    jobs = {
        job["job_name"]: job["static_configs"][0]["targets"] for job in yaml.safe_load(text)["scrape_configs"]
    }

    assert jobs == {name: [f"127.0.0.1:{SETTINGS.metrics_port(name)}"] for name in (*SERVICES, "etcd")}


def test_the_image_has_the_hosts_packages() -> None:
    """A program that a service begins to need is named once, in deploy/packages.txt."""
    assert {"etcd-server", "lxc", "dnsmasq-base", "nftables", "btrfs-progs", "prometheus"} <= set(packages())


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        (
            "9:name=systemd:/\n4:memory:/a/b\n1:cpu,cpuacct:/\n0::/\n",
            [
                Hierarchy("systemd", "cgroup", "name=systemd"),
                Hierarchy("memory", "cgroup", "memory"),
                Hierarchy("cpu,cpuacct", "cgroup", "cpu,cpuacct"),
                Hierarchy("unified", "cgroup2", ""),
            ],
        ),
        ("0::/docker/abc\n", [Hierarchy("", "cgroup2", "")]),
    ],
    ids=["v1 and hybrid", "v2"],
)
def test_cgroups_are_mounted_as_the_host_has_them(own: str, expected: list[Hierarchy]) -> None:
    assert hierarchies(own) == expected
