"""What verbs make of their words before and after they talk to a server."""

import io
from pathlib import Path
from typing import Any

import pytest

from cli.arguments import parse
from cli.call import Call
from cli.console import Keys
from cli.creation import request_body
from cli.execution import is_interactive
from cli.failure import CliError, UsageError
from cli.files import _entries, split
from cli.monitor import is_loud_enough, pretty
from cli.remotes import add, listing, remove
from cli.storage import grouped
from cli.transfers import Multipart, _suffix
from cli.verbs import GROUPS, VERBS


def a_call(*words: str) -> Call:
    return Call(parse(VERBS, words, GROUPS))


def test_flags_go_over_the_yaml_that_was_piped_in():
    call = a_call("init", "--empty", "web", "-c", "limits.cpu=2", "-d", "root,size=5GiB", "-s", "fast", "-e")
    base = {"config": {"limits.cpu": "1", "user.x": "y"}, "description": "hello", "profiles": ["big"]}

    body = request_body(call, base)

    assert body == {
        "name": "web",
        "source": {"type": "none"},
        "type": "container",
        "config": {"limits.cpu": "2", "user.x": "y"},
        "devices": {"root": {"type": "disk", "path": "/", "pool": "fast", "size": "5GiB"}},
        "profiles": ["big"],
        "description": "hello",
        "ephemeral": True,
    }


def test_no_profiles_is_not_the_same_as_the_default_ones():
    assert request_body(a_call("init", "--empty", "web", "--no-profiles"), {})["profiles"] == []
    assert "profiles" not in request_body(a_call("init", "--empty", "web"), {})


@pytest.fixture
def remotes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Nobody's real remotes are read or changed."""
    monkeypatch.setenv("PODIUM_CONF", str(tmp_path))
    monkeypatch.setattr("cli.call.Call.server", None)
    add(a_call("remote", "add", "docker", "https://me:secret@registry.test/mirror", "--protocol", "oci"))
    add(a_call("remote", "add", "images", "images.test", "--protocol", "simplestreams"))


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ("docker:debian:12", {"protocol": "oci", "alias": "debian:12"}),
        ("docker:0123456789ab", {"protocol": "oci", "alias": "0123456789ab"}),
        ("images:debian/12", {"protocol": "simplestreams", "alias": "debian/12"}),
        ("images:0123456789ab", {"protocol": "simplestreams", "fingerprint": "0123456789ab"}),
    ],
)
def test_an_image_of_a_remote_is_named_to_the_server(remotes: None, image: str, expected: dict[str, str]):
    source = request_body(a_call("init", image, "web"), {})["source"]

    assert source.pop("server").startswith("https://")
    assert source == {"type": "image", "mode": "pull", **expected}


def test_a_remote_that_is_not_known_is_told_from_those_that_are(remotes: None):
    with pytest.raises(CliError, match="other is no remote") as told:
        request_body(a_call("init", "other:debian/12", "web"), {})
    assert "docker, images" in str(told.value.why)


def test_remotes_are_kept_from_others_and_their_passwords_from_the_list(
    remotes: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    listing(a_call("remote", "list", "-f", "csv"))

    assert (tmp_path / "remotes.json").stat().st_mode & 0o777 == 0o600
    assert capsys.readouterr().out.splitlines() == [
        "docker,https://registry.test/mirror,oci",
        "images,https://images.test,simplestreams",
    ]
    remove(a_call("remote", "remove", "docker"))
    with pytest.raises(CliError, match="no remote"):
        remove(a_call("remote", "remove", "docker"))


@pytest.mark.parametrize(
    "words",
    [
        ("local", "x"),
        ("a:b", "x"),
        ("", "x"),
        ("a", "https://"),
        ("a", "x", "--protocol", "ftp"),
        ("docker", "x"),
    ],
)
def test_a_remote_that_cannot_be_is_refused(remotes: None, words: tuple[str, ...]):
    with pytest.raises((CliError, UsageError)):
        add(a_call("remote", "add", *words))


@pytest.mark.parametrize("words", [("-c", "novalue"), ("-d", "root"), ("-d", "root,size")])
def test_a_broken_pair_is_refused(words: tuple[str, ...]):
    with pytest.raises(UsageError):
        request_body(a_call("init", "--empty", "web", *words), {})


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (("-t",), True),
        (("-T",), False),
        (("--mode=interactive",), True),
        (("--mode=non-interactive",), False),
    ],
)
def test_a_terminal_can_be_forced(flags: tuple[str, ...], expected: bool):
    assert is_interactive(a_call("exec", "web", *flags, "--", "sh")) is expected


def test_both_modes_at_once_are_refused():
    with pytest.raises(UsageError):
        is_interactive(a_call("exec", "web", "-t", "-T", "--", "sh"))


def test_ctrl_a_q_leaves_the_console_and_nothing_else_does():
    keys = Keys()

    assert keys(b"ls\r") == b"ls\r"
    assert keys(b"\x01") == b""
    assert keys(b"\x01x") == b"\x01x"
    assert keys(b"a\x01z") == b"a\x01z"
    assert keys(b"\x01q") is None


def test_a_file_of_an_instance_is_split_at_the_first_slash():
    assert split(a_call("file", "delete", "web/etc/x"), "web/etc/x") == ("web", "/etc/x")
    with pytest.raises(UsageError):
        split(a_call("file", "delete", "web"), "web")


def test_names_a_guest_made_up_cannot_lead_out_of_the_folder():
    """The listing of a folder is the guest's word; joining it blindly would write anywhere here."""
    assert _entries(b'{"metadata": ["ok", "..", "../../etc/passwd", ".", "", "/abs", "a\\u0000b"]}') == ["ok"]


class Slowly(io.BytesIO):
    """Hands out a few bytes at a time, as a socket may."""

    def read(self, count: int | None = -1) -> bytes:
        return super().read(7)


@pytest.mark.parametrize("source", [io.BytesIO, Slowly])
def test_a_split_image_is_read_part_by_part(source: Any):
    data = (
        b'--XX\r\nContent-Disposition: form-data; name=metadata; filename="meta.tar.xz"'
        b"\r\n\r\none\r\n--X\r\n--XX\r\n"
        b'Content-Disposition: form-data; name="rootfs"; filename=root.squashfs\r\n'
        b"Content-Type: x/y\r\n\r\n\r\n--XX--\r\n"
    )
    parts = Multipart(source(data), "XX")

    assert parts.next_part() == ("metadata", "meta.tar.xz")
    assert b"".join(parts.body()) == b"one\r\n--X"
    assert parts.next_part() == ("rootfs", "root.squashfs")
    assert b"".join(parts.body()) == b""
    assert parts.next_part() is None


def test_an_export_that_ends_early_is_an_error():
    parts = Multipart(io.BytesIO(b'--X\r\nContent-Disposition: form-data; name="rootfs"\r\n\r\nhalf'), "X")
    parts.next_part()

    with pytest.raises(CliError, match="early"):
        list(parts.body())


def test_the_suffix_of_an_export_is_kept():
    assert _suffix("abc123.tar.gz", "abc123") == ".tar.gz"
    assert _suffix("abc123.squashfs", "abc123") == ".squashfs"
    assert _suffix("abc123", "abc123") == ""


def test_users_of_a_pool_are_grouped_by_kind():
    paths = ["/1.0/instances/b?project=p", "/1.0/instances/a", "/1.0/profiles/x%2Fy"]

    assert grouped(paths) == {"instances": ["a", "b"], "profiles": ["x/y"]}


def test_an_event_is_one_line():
    event = {
        "type": "lifecycle",
        "timestamp": "2026-11-24T06:55:48.9Z",
        "metadata": {
            "action": "instance-started",
            "source": "/1.0/instances/web",
            "requestor": {"username": "root"},
        },
    }

    assert pretty(event).endswith("lifecycle instance-started /1.0/instances/web by root")


def test_quiet_log_events_are_left_out():
    event = {"type": "logging", "metadata": {"level": "debug"}}

    assert not is_loud_enough(event, "info")
    assert is_loud_enough(event, "trace")
    assert is_loud_enough({"type": "lifecycle", "metadata": {}}, "error")
