"""What is refused is refused as LXD 5.0.2 refuses it: with its status and words, seen by the stock client."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from tests.e2e.conftest import Podium

NAME = "t-words"


@pytest.fixture(scope="module")
def server(podium: Podium) -> Iterator[Podium]:
    podium.lxc("init", "debian/12", NAME)
    yield podium
    podium.lxc("delete", "--force", NAME)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("cluster show x", "Server is not clustered"),
        ("cluster remove x", "Server is not clustered"),
        ("cluster rename x y", "Server is not clustered"),
        ("cluster add x", "This server is not clustered"),
        ("cluster group create x", "This server is not clustered"),
        ("cluster group show x", "This server is not clustered"),
        (
            "cluster enable x",
            "Failed to configure cluster: This is done on the host, as root: podium cluster enable, "
            "podium cluster join TOKEN",
        ),
        (
            "config device add t-words root none",
            "Invalid expanded devices: Failed detecting root disk device: No root device could be found",
        ),
        ("config unset nosuch", "cannot set 'nosuch' to '': unknown key"),
        ("profile unset default nosuch", "Unknown configuration key: nosuch"),
        ("config unset nosuch", "cannot set 'nosuch' to '': unknown key"),
        ("project unset default nosuch", 'Invalid project configuration key "nosuch"'),
        ("stop t-words/s1", "Invalid instance name"),
        ("exec t-words/s1 -- true", "Invalid instance name"),
        ("console t-words --type vga", "VGA console is only supported by virtual machines"),
        ("query /1.0/instances?instance-type=nosuch", "Invalid instance type"),
        ("image list --project nosuch", "Check if project has images: fetch project: Project not found"),
        ("profile list --project nosuch", 'Failed loading project "nosuch": Project not found'),
        ("network list --project nosuch", 'Failed to load project "nosuch": Project not found'),
        ("info x --project nosuch", "Instance not found"),
        ("query /1.0/virtual-machines/t-words", "Instance not found"),
        ("query /1.0/virtual-machines/t-words/state", "Instance not found"),
        ("query -X DELETE /1.0/virtual-machines/t-words", "Instance not found"),
        (
            "query -X PUT -d {} /1.0/instances/t-words",
            "Volatile idmap keys can't be deleted by the user",
        ),
        ("image alias create debian/12 nosuch", 'Alias "debian/12" already exists'),
        (
            "init debian/12 x --project nosuch",
            "Check if project has images: fetch project: Project not found",
        ),
    ],
)
def test_what_is_refused_is_said_in_lxds_words(server: Podium, command: str, words: str) -> None:
    done = server.run(*command.split())
    assert (done.returncode, done.stderr.decode().strip()) == (1, f"Error: {words}")


def test_an_empty_file_takes_neither_profiles_nor_devices(server: Podium) -> None:
    before = server.lxc("config", "show", NAME)

    done = server.run("config", "edit", NAME, input=b"\n")

    assert done.returncode == 1
    assert b"Volatile idmap keys can't be deleted by the user" in done.stderr
    assert server.lxc("config", "show", NAME) == before


def test_what_has_never_run_has_an_empty_log(server: Podium) -> None:
    assert server.lxc("info", NAME, "--show-log").endswith("\nLog:\n\n\n")
    assert server.rest.call("GET", f"/1.0/instances/{NAME}/logs") == [f"/1.0/instances/{NAME}/logs/lxc.log"]


def test_lxd_s_own_program_finds_the_server_ready(server: Podium) -> None:
    """Scripts wait by it after a start."""
    asked = ["lxd", "waitready", "--timeout=10"]
    environment = {**server.environment, "LXD_DIR": str(server.state_dir)}
    done = subprocess.run(asked, env=environment, capture_output=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
