"""Tables, CSV and the rest, letter by letter as lxc 5.0.2 prints them."""

import json

import pytest

from cli.failure import UsageError
from cli.tables import natural, render

HEADER = ("NAME", "STATE", "IPV4")
ROWS = [["web", "RUNNING", "10.0.0.2 (eth0)\n10.0.0.3 (eth1)"], ["a-longer-name", "STOPPED", ""]]
TABLE = """\
+---------------+---------+-----------------+
|     NAME      |  STATE  |      IPV4       |
+---------------+---------+-----------------+
| web           | RUNNING | 10.0.0.2 (eth0) |
|               |         | 10.0.0.3 (eth1) |
+---------------+---------+-----------------+
| a-longer-name | STOPPED |                 |
+---------------+---------+-----------------+
"""
COMPACT = (
    "      NAME        STATE        IPV4        \n"
    "  web            RUNNING  10.0.0.2 (eth0)  \n"
    "                          10.0.0.3 (eth1)  \n"
    "  a-longer-name  STOPPED                   \n"
)


def test_a_table_has_rules_and_lines_for_each_line_of_a_cell():
    assert render("table", HEADER, ROWS, None) == TABLE


def test_compact_leaves_the_rules_out():
    assert render("compact", HEADER, ROWS, None) == COMPACT


def test_an_empty_table_still_has_its_header():
    assert render("table", ("NAME",), [], None) == "+------+\n| NAME |\n+------+\n"


def test_csv_quotes_only_what_needs_it():
    rows = [["plain", 'a "quoted"', "a,b", " led", "two\nlines", ""]]

    assert render("csv", (), rows, None) == 'plain,"a ""quoted""","a,b"," led","two\nlines",\n'


def test_json_is_what_the_rows_were_made_from():
    objects = [{"name": "wäb"}]

    text = render("json", HEADER, ROWS, objects)

    assert json.loads(text) == objects
    assert "wäb" in text


def test_yaml_keeps_the_order_of_fields():
    assert render("yaml", HEADER, ROWS, [{"b": "1", "a": []}]) == '- b: "1"\n  a: []\n'


def test_an_unknown_format_is_named():
    with pytest.raises(UsageError, match="xml"):
        render("xml", HEADER, ROWS, None)


def test_wide_letters_do_not_break_the_frame():
    lines = render("table", ("NAME",), [["日本"], ["web"]], None).splitlines()

    assert lines[3] == "| 日本 |"


def test_numbers_in_names_sort_as_numbers():
    assert sorted(["web10", "web9", "db"], key=natural) == ["db", "web9", "web10"]
