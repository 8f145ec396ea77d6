"""What a person reads when something fails: always three lines, always a next step."""

import pytest

from cli.arguments import parse
from cli.call import Call
from cli.failure import FAILED, MISUSED, UNREACHABLE, Refused, explain, next_for
from cli.main import main
from cli.verbs import GROUPS, VERBS


@pytest.mark.parametrize(
    ("status", "reason", "next"),
    [
        (404, "Instance not found", "podium list"),
        (400, "The instance is already running", "podium restart web"),
        (400, "The instance is already stopped", "podium start web"),
        (
            400,
            "The instance is currently running, stop it first or pass --force",
            "podium delete --force web",
        ),
        (404, 'Profile "x" not found', "podium profile list"),
        (403, "not authorized", "ask an administrator, or use a project you may see: podium project list"),
        (503, "etcd is away", "the same command in a moment; if it lasts, podium up"),
        (500, "anything else", "podium info web --show-log"),
    ],
)
def test_a_refusal_has_a_next_step(status: int, reason: str, next: str):
    assert next_for(status, reason, "start", ["web"]) == next


def test_an_explanation_has_three_lines_whatever_the_server_said():
    text = explain(Refused(400, "several\nlines\n\nof reason"), "start", ["web"])

    assert text.splitlines() == [
        "Error: podium start web failed",
        "Why: several lines of reason",
        "Try: podium info web --show-log",
    ]


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("list", UNREACHABLE),
        ("lst", MISUSED),
        ("list -f xml", MISUSED),
        ("start", MISUSED),
        ("image import /no", FAILED),
    ],
)
def test_exit_codes_tell_refused_misused_and_unreachable_apart(
    line: str, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("PODIUM_DIR", "/nonexistent")

    assert main(line.split()) == code
    error = capsys.readouterr().err.splitlines()
    assert [part.partition(":")[0] for part in error] == ["Error", "Why", "Try"]


def test_a_bug_is_three_lines_as_well(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """A traceback helps nobody who only wanted a list; --debug shows it."""
    monkeypatch.setattr("cli.listing.instances", lambda call: 1 / 0)

    assert main(["list"]) == FAILED
    assert capsys.readouterr().err.count("\n") == 3
    assert main(["list", "--debug"]) == FAILED
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_a_number_is_checked_before_anything_is_sent():
    call = Call(parse(VERBS, ["stop", "web", "--timeout", "soon"], GROUPS))

    with pytest.raises(Exception, match="soon"):
        call.number("timeout")
