"""Completion offers what may stand at the cursor."""

import subprocess

import pytest

from cli.completion import candidates, complete

NAMES = {
    "INSTANCE": ["web", "db"],
    "FILTER": ["web", "db"],
    "IMAGE": ["debian/12"],
    "PROFILE": ["default"],
    "PROJECT": ["default"],
    "NETWORK": ["br0"],
    "DEVICE": ["eth0"],
}


def offered(line: str) -> list[str]:
    return candidates(line.split(" "), lambda kind, before: NAMES.get(kind, []))


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("sto", ["stop", "storage"]),
        ("image al", ["alias"]),
        ("image alias ", ["list", "create", "delete", "rename"]),
        ("start ", ["web", "db"]),
        ("start web d", ["db"]),
        ("stop -f ", ["web", "db"]),
        ("launch d", ["debian/12"]),
        ("launch debian/12 ", []),
        ("launch debian/12 x -p ", ["default"]),
        ("launch debian/12 x --network ", ["br0"]),
        ("list --fo", ["--format", "--force-local"]),
        ("list -f c", ["compact", "csv"]),
        ("list -f csv w", ["web"]),
        ("--project ", ["default"]),
        ("--project p st", ["start", "stop", "storage"]),
        ("profile add web ", ["default"]),
        ("config device remove web ", ["eth0"]),
        ("rm w", ["web"]),
        ("completion ", ["bash", "zsh", "fish"]),
        ("nonsense ", []),
        ("exec web -- ", ["\x00files"]),
        ("file pull w", ["web/"]),
        ("file push x ", ["\x00files", "web/", "db/"]),
    ],
)
def test_what_may_follow_is_offered(line: str, found: list[str]):
    assert offered(line) == found


def test_a_server_that_is_away_leaves_the_prompt_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("PODIUM_DIR", "/nonexistent")

    assert complete(["start", ""]) == 1
    assert capsys.readouterr() == ("", "")


def test_the_bash_script_is_bash():
    from cli.completion import _SCRIPTS

    subprocess.run(["bash", "-n"], input=_SCRIPTS["bash"].encode(), check=True)
