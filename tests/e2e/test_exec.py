"""Commands with and without a terminal, through the stock client."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.conftest import Podium
from tests.e2e.test_dead_clients import Exec
from tests.e2e.test_launch import wait_for

NAME = "exec1"


@pytest.fixture(scope="module")
def guest(podium: Podium) -> Iterator[Podium]:
    podium.lxc("launch", "debian/12", NAME)
    yield podium
    podium.lxc("delete", "--force", NAME)


def test_what_is_typed_before_the_command_runs_is_not_lost(guest: Podium) -> None:
    """A pasted line must reach the shell even when it is sent while the terminal is being made."""
    for _ in range(3):
        done = guest.run("exec", NAME, "-t", "--", "bash", input=b"echo $((20+22)); exit 4\n", timeout=20)

        assert b"42" in done.stdout
        assert done.returncode == 4


def test_the_end_of_input_reaches_a_program_on_a_terminal(guest: Podium) -> None:
    """Without it `cat` would wait for ever, and with a hang-up instead others would be killed."""
    # A shell holds the terminal: liblxc hangs up on a program that closes all its descriptors itself.
    reader = ("sh", "-c", "cat >/dev/null; exit 6")
    assert guest.run("exec", NAME, "-t", "--", *reader, input=b"", timeout=20).returncode == 6
    assert guest.run("exec", NAME, "-t", "--", "sh", "-c", "exit 5", timeout=20).returncode == 5


@pytest.mark.parametrize(
    ("command", "status"),
    [("kill -9 $$", 137), ("kill -TERM $$", 143), ("exit 3", 3), ("/etc/hostname", 126), ("nosuch", 127)],
)
def test_the_client_ends_as_the_command_did(guest: Podium, command: str, status: int) -> None:
    argv = ["sh", "-c", command] if " " in command else [command]

    assert guest.run("exec", NAME, "-T", "--", *argv, timeout=20).returncode == status


@pytest.mark.parametrize("user", ["0", "1000"])
def test_a_terminal_belongs_to_who_runs_the_command(guest: Podium, user: str) -> None:
    """screen, gpg, mesg and every script that writes to $(tty) open it by its name."""
    look = 'sleep 0.1; stat -c "%u %G" "$(tty)"; echo written >"$(tty)"'
    done = guest.run("exec", NAME, "-t", "--user", user, "--", "sh", "-c", look, timeout=20)

    assert done.stdout.split() == [user.encode(), b"tty", b"written"], done.stderr


def test_what_a_command_leaves_to_write_is_heard(guest: Podium) -> None:
    """bash ends before what it writes through; a daemon that keeps the pipe for ever is not waited for."""
    late = "(sleep 0.3; echo late) & echo early"
    assert guest.lxc("exec", NAME, "--", "sh", "-c", late, timeout=20) == "early\nlate\n"

    assert guest.lxc("exec", NAME, "--", "sh", "-c", "sleep 60 & echo started", timeout=20) == "started\n"


def test_a_command_that_was_not_found_says_so(guest: Podium) -> None:
    done = guest.run("exec", NAME, "--", "nosuch", timeout=20)

    assert b"Command not found" in done.stderr
    assert b".c:" not in done.stderr, "the engine's own words are for its log"


def test_input_that_comes_as_one_large_frame_is_whole(guest: Podium) -> None:
    """pylxd sends all of its input at once; half of it, and a status of 0, would be worst of all."""
    size = 20 << 20
    body = {"command": ["sh", "-c", "wc -c > /root/size"], "wait-for-websocket": True, "interactive": False}
    command = Exec(guest, f"/1.0/instances/{NAME}/exec", body)
    masked = bytes([0x82, 0x80 | 127]) + size.to_bytes(8, "big") + bytes(4)
    command.sockets["0"].sendall(masked + bytes(size) + b"\x81\x80" + bytes(4))

    wait_for(command.is_over)
    assert guest.lxc("exec", NAME, "--", "cat", "/root/size").strip() == str(size)


def test_a_command_may_open_its_own_streams_again(guest: Podium) -> None:
    """Scripts write to /dev/stderr; the kernel checks who owns the pipe when it is opened by name."""
    command = "echo out > /dev/stdout; echo err > /dev/stderr"
    for who in ([], ["--user", "1000"]):
        done = guest.run("exec", NAME, *who, "--", "sh", "-c", command, timeout=20)

        assert (done.stdout, done.stderr) == (b"out\n", b"err\n")


def test_much_output_on_both_streams_passes_whole(guest: Podium) -> None:
    """Through pipes that no service reads; a lost or doubled piece would change the size."""
    command = "head -c 100M /dev/zero | tee /dev/stderr"
    done = guest.run("exec", NAME, "--", "sh", "-c", command)

    assert (len(done.stdout), len(done.stderr)) == (100 << 20, 100 << 20)
