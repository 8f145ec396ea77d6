"""The command line: flags among words, aliases, and what is said about a wrong one."""

import pytest

from cli.arguments import arity, members, parse
from cli.failure import UsageError
from cli.verbs import GROUPS, VERBS


def read(line: str):
    return parse(VERBS, line.split(), GROUPS)


def test_flags_may_stand_anywhere_among_the_words():
    """`lxc delete web -f` and `lxc delete -f web` are both what people type."""
    for line in ("delete web db -f", "delete -f web db", "delete web --force db"):
        parsed = read(line)

        assert (parsed.words, parsed.options) == (["web", "db"], {"force": ["true"]})


@pytest.mark.parametrize(
    ("line", "options"),
    [
        ("list -c ns -f csv", {"columns": ["ns"], "format": ["csv"]}),
        ("list --columns=ns --format=csv", {"columns": ["ns"], "format": ["csv"]}),
        ("list -cns -f=csv", {"columns": ["ns"], "format": ["csv"]}),
        ("launch i n -c a=1 -c b=2 -e", {"config": ["a=1", "b=2"], "ephemeral": ["true"]}),
        ("file pull -pr web/etc .", {"create-dirs": ["true"], "recursive": ["true"]}),
        ("start web --console", {"console": ["console"]}),
        ("start web --console=vga", {"console": ["vga"]}),
        ("--project p -q list", {"project": ["p"], "quiet": ["true"]}),
        ("list --fast=false", {"fast": ["false"]}),
    ],
)
def test_flags_are_read_as_the_stock_client_reads_them(line: str, options: dict[str, list[str]]):
    """Long and short, joined and apart, repeated, with a value of their own, before the verb."""
    assert read(line).options == options


def test_everything_after_two_dashes_is_a_word():
    """A command in an instance has flags of its own."""
    assert read("exec web -T -- ls -la --color").words == ["web", "ls", "-la", "--color"]


def test_a_lone_dash_is_a_word():
    """It names standard input and output."""
    assert read("file push - web/root/x").words == ["-", "web/root/x"]


@pytest.mark.parametrize(
    ("line", "path"),
    [
        ("ls", "list"),
        ("rm web", "delete"),
        ("image ls", "image list"),
        ("warning ack x", "warning acknowledge"),
    ],
)
def test_aliases_name_the_same_verb(line: str, path: str):
    assert read(line).path == path


def test_the_local_remote_may_be_named():
    """Scripts written for lxc say local:web."""
    assert read("start local:web").words == ["web"]


@pytest.mark.parametrize(
    ("line", "next"),
    [
        ("lst", "podium list"),
        ("image lits", "podium image list"),
        ("stop --forc web", "podium stop --force"),
        ("exec web -x", "podium exec NAME -- COMMAND, with -- before the command"),
        ("rename web", "podium rename --help"),
        ("rename a b c", "podium rename --help"),
        ("list -f", "podium list --help"),
        ("list --fast=maybe", "podium list --help"),
    ],
)
def test_a_wrong_command_line_says_what_to_type_instead(line: str, next: str):
    with pytest.raises(UsageError) as caught:
        read(line)

    assert caught.value.next == next
    assert caught.value.lines().count("\n") == 3


def test_help_is_not_refused_for_missing_words():
    assert "help" in read("rename --help").options


def test_a_group_alone_asks_for_its_help():
    parsed = read("config device")

    assert (parsed.path, parsed.verb) == ("config device", None)


def test_words_are_counted_from_their_description():
    assert arity("INSTANCE [KEY=VALUE...]") == (1, None)
    assert arity("INSTANCE NAME") == (2, 2)
    assert arity("") == (0, 0)


def test_members_of_a_group_are_listed_once():
    assert members(VERBS, "config").count("device") == 1
