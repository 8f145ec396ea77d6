"""Files of every size both ways, recorded output, and the end of an output that a client waits for."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import Podium

NAME = "t-files"
_BIG = 48 << 20
# pylxd reads until the operation has a "return", and hangs up at once then.
_PYLXD = """
import sys, pylxd
client = pylxd.Client(endpoint=sys.argv[1], cert=tuple(sys.argv[2:4]) or None, verify=False)
instance = client.instances.get(sys.argv[4])
for size in (6, 24):
    command = ["sh", "-c", f"head -c {size << 20} /dev/zero | tr '\\\\0' a; echo end"]
    found = instance.execute(command)
    assert (len(found.stdout), found.exit_code) == ((size << 20) + 4, 0), len(found.stdout)
"""


@pytest.fixture(scope="module")
def guest(podium: Podium) -> Iterator[Podium]:
    podium.lxc("launch", "debian/12", NAME)
    yield podium
    podium.lxc("delete", "--force", NAME)


def _sum(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("is_running", [True, False])
def test_big_files_pass_whole_with_owner_and_mode(guest: Podium, tmp_path: Path, is_running: bool) -> None:
    """They go through a pipe lent by the runtime, also into an instance that is stopped."""
    if not is_running:
        guest.lxc("stop", "--force", NAME)
    data = os.urandom(_BIG)
    (tmp_path / "there").write_bytes(data)
    guest.lxc(
        *("file", "push", "-p", "--mode=0640", "--uid=5", "--gid=6"),
        *(str(tmp_path / "there"), f"{NAME}/root/new/big"),
    )
    guest.lxc("file", "pull", f"{NAME}/root/new/big", str(tmp_path / "back"))
    assert _sum((tmp_path / "back").read_bytes()) == _sum(data)
    assert (tmp_path / "back").stat().st_mode & 0o777 == 0o640
    if not is_running:
        guest.lxc("start", NAME)
    assert guest.lxc("exec", NAME, "--", "stat", "-c", "%u %g %a", "/root/new/big").split() == [
        "5",
        "6",
        "640",
    ]
    guest.lxc("file", "delete", f"{NAME}/root/new/big", f"{NAME}/root/new")


def test_a_file_system_of_the_guests_takes_files_too(guest: Podium, tmp_path: Path) -> None:
    """In a tmpfs that systemd mounted inside, as /run, the host's root has no name to make files by."""
    if not guest.lxc("list", "-f", "csv", "-c", "s", NAME).startswith("RUNNING"):
        guest.lxc("start", NAME)
    guest.lxc("exec", NAME, "--", "mount", "-t", "tmpfs", "t", "/mnt")
    (tmp_path / "f").write_text("content")
    guest.lxc("file", "push", str(tmp_path / "f"), f"{NAME}/mnt/new/f", "-p", "--uid", "5", "--mode", "0640")
    assert guest.lxc("exec", NAME, "--", "stat", "-c", "%u %g %a", "/mnt/new/f") == "5 0 640\n"
    assert guest.lxc("file", "pull", f"{NAME}/mnt/new/f", "-") == "content"
    guest.lxc("exec", NAME, "--", "umount", "/mnt")


def test_what_cannot_be_is_said_in_lxds_words(guest: Podium, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(bytes(2 << 20))
    for arguments, said in (
        (
            ("push", str(tmp_path / "big"), f"{NAME}/tmp"),
            'sftp: "open /tmp: is a directory" (SSH_FX_FAILURE)',
        ),
        (("push", str(tmp_path / "big"), f"{NAME}/no/such"), "Not Found"),
        (("pull", f"{NAME}/no", str(tmp_path / "x")), "Not Found"),
        (("delete", f"{NAME}/etc"), 'sftp: "remove /etc: directory not empty" (SSH_FX_FAILURE)'),
        # The kernel would unmount it: it protects mount points of its caller's namespace only.
        (("delete", f"{NAME}/proc"), 'sftp: "remove /proc: device or resource busy" (SSH_FX_FAILURE)'),
        (
            ("delete", f"{NAME}/dev/null"),
            'sftp: "remove /dev/null: device or resource busy" (SSH_FX_FAILURE)',
        ),
        (
            ("delete", f"{NAME}/etc/passwd/x"),
            'sftp: "remove /etc/passwd/x: not a directory" (SSH_FX_FAILURE)',
        ),
    ):
        done = guest.run("file", *arguments)
        assert (done.returncode, done.stderr.decode().strip().rpartition("\r")[2].strip()) == (
            1,
            f"Error: {said}",
        )


@pytest.mark.parametrize("leads", ["nothing-yet", "/opt/nothing-yet", "../../../../../../opt/nothing-yet"])
def test_what_is_pushed_to_a_link_lands_where_it_leads(guest: Podium, tmp_path: Path, leads: str) -> None:
    """As open(2) would have it; /etc/resolv.conf of a stopped instance is such a link. Never outside."""
    (tmp_path / "f").write_text("through\n")
    guest.lxc("exec", NAME, "--", "sh", "-c", f"rm -f /opt/*; ln -s {leads} /opt/link")

    guest.lxc("file", "push", str(tmp_path / "f"), f"{NAME}/opt/link")

    assert guest.lxc("exec", NAME, "--", "cat", "/opt/nothing-yet") == "through\n"
    assert guest.lxc("exec", NAME, "--", "readlink", "/opt/link") == f"{leads}\n"
    assert not Path("/opt/nothing-yet").exists()


def test_links_that_lead_to_each_other_are_refused(guest: Podium, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    guest.lxc("exec", NAME, "--", "ln", "-s", "round", "/opt/round")

    done = guest.run("file", "push", str(tmp_path / "f"), f"{NAME}/opt/round")

    assert done.returncode == 1
    assert b"symbolic links" in done.stderr


def test_a_program_with_the_set_uid_bit_comes_with_its_permissions(guest: Podium, tmp_path: Path) -> None:
    guest.lxc("exec", NAME, "--", "sh", "-c", "echo x >/opt/su; chmod 4711 /opt/su")

    guest.lxc("file", "pull", f"{NAME}/opt/su", str(tmp_path / "su"))

    assert (tmp_path / "su").stat().st_mode & 0o777 == 0o711


def test_a_file_that_is_there_keeps_its_owner_and_mode(guest: Podium, tmp_path: Path) -> None:
    """As in LXD: the stock client sends those of its own file, which nobody asked for."""
    (tmp_path / "new").write_text("new")
    guest.lxc(
        "exec", NAME, "--", "sh", "-c", "echo old > /root/kept; chown 5:6 /root/kept; chmod 600 /root/kept"
    )
    guest.lxc("file", "push", str(tmp_path / "new"), f"{NAME}/root/kept", "--mode", "0755", "--uid", "3")
    assert guest.lxc("exec", NAME, "--", "stat", "-c", "%a %u %g %s", "/root/kept").split() == [
        *("600", "5", "6", "3")
    ]


def test_a_folder_comes_back_as_it_went(guest: Podium, tmp_path: Path) -> None:
    folder = tmp_path / "tree"
    (folder / "a" / "b").mkdir(parents=True)
    (folder / "a" / "b" / "file").write_text("x")
    (folder / "a" / "empty").write_text("")
    (folder / "link").symlink_to("a/b/file")
    guest.lxc("file", "push", "-r", "-p", str(folder), f"{NAME}/root/sent")
    guest.lxc("file", "pull", "-r", f"{NAME}/root/sent/tree", str(tmp_path / "back"))
    found = subprocess.run(["diff", "-r", "--no-dereference", str(folder), str(tmp_path / "back/tree")])
    assert found.returncode == 0


def test_output_is_recorded_and_can_be_read_and_deleted(guest: Podium) -> None:
    body = {"command": ["sh", "-c", "echo hi; echo no >&2; exit 3"], "record-output": True}
    answer = json.loads(
        guest.lxc("query", "-X", "POST", "--wait", "-d", json.dumps(body), f"/1.0/instances/{NAME}/exec")
    )
    output = answer["metadata"]["output"]
    assert answer["metadata"] == {"return": 3, "output": output}
    assert {fd: guest.lxc("query", url) for fd, url in output.items()} == {"1": "hi\n", "2": "no\n"}
    logs = json.loads(guest.lxc("query", f"/1.0/instances/{NAME}/logs"))
    assert {*output.values(), f"/1.0/instances/{NAME}/logs/lxc.log"} <= {*logs}
    for url in output.values():
        guest.lxc("query", "-X", "DELETE", url)
    refused = guest.run("query", "-X", "DELETE", f"/1.0/instances/{NAME}/logs/lxc.log")
    assert refused.stderr.decode() == "Error: lxc.log and lxc.conf may not be deleted\n"


@pytest.mark.parametrize("over", ["socket", "https"])
def test_an_operation_ends_no_sooner_than_its_output_was_passed_on(
    guest: Podium, tmp_path: Path, over: str
) -> None:
    endpoint, certificate = f"http+unix://{str(guest.state_dir / 'unix.socket').replace('/', '%2F')}", ()
    if over == "https":
        endpoint, certificate = f"https://{guest.environment['PODIUM_HTTPS']}", _trusted(guest, tmp_path)
    plain = {k: v for k, v in os.environ.items() if not k.endswith(("CA_BUNDLE", "SSL_CERT_FILE"))}
    argv = [sys.executable, "-c", _PYLXD, endpoint, *(certificate or ("", "")), NAME]
    for _ in range(3):
        done = subprocess.run(argv, env=plain, capture_output=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr.decode()[-600:]


def _trusted(podium: Podium, folder: Path) -> tuple[str, str]:
    name = f"c{secrets.token_hex(3)}"
    files = str(folder / f"{name}.crt"), str(folder / f"{name}.key")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}", "-days", "2",
         "-out", files[0], "-keyout", files[1]],
        check=True, capture_output=True,
    )  # fmt: skip
    podium.lxc("config", "trust", "add", files[0])
    return files
