"""Metadata and templates of instances with the stock client, and cloud-init's seed as images make it."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.e2e.conftest import Podium

METADATA = b"""architecture: x86_64
creation_date: 1700000000
expiry_date: 0
properties: {os: debian}
templates:
  /etc/hostname:
    when: [create, copy, rename]
    template: hostname.tpl
  /var/lib/cloud/seed/nocloud-net/user-data:
    when: [create, copy]
    template: cloud-init-user.tpl
    properties: {default: "#cloud-config\\n{}"}
  /etc/started:
    when: [start]
    template: hostname.tpl
"""
USER = b"""{{ config_get("cloud-init.user-data", config_get("user.user-data", properties.default)) }}
"""


@pytest.fixture
def made(podium: Podium) -> Iterator[Podium]:
    podium.lxc("init", "debian/12", "tpl", "-c", "user.user-data=#cloud-config\nhello: 1")
    yield podium
    for name in ("tpl", "other"):
        podium.run("delete", "-f", name)


def test_templates_are_edited_and_come_into_force(made: Podium) -> None:
    """The whole way: metadata, templates, first start, rename, next start."""
    assert made.lxc("config", "template", "list", "tpl", "--format", "csv") == ""
    made.lxc("config", "metadata", "edit", "tpl", input=METADATA)
    made.lxc(
        "config", "template", "edit", "tpl", "hostname.tpl", input=b"{{ instance.name }}-{{ trigger }}\n"
    )
    made.lxc("config", "template", "edit", "tpl", "cloud-init-user.tpl", input=USER)
    assert "template: hostname.tpl" in made.lxc("config", "metadata", "show", "tpl")
    assert made.lxc("config", "template", "show", "tpl", "cloud-init-user.tpl") == USER.decode()
    assert made.lxc("config", "get", "tpl", "volatile.apply_template") == "create\n"

    made.lxc("start", "tpl")

    assert made.lxc("exec", "tpl", "--", "cat", "/etc/hostname") == "tpl-create\n"
    assert made.lxc("exec", "tpl", "--", "cat", "/etc/started") == "tpl-start\n"
    seed = made.lxc("exec", "tpl", "--", "cat", "/var/lib/cloud/seed/nocloud-net/user-data")
    assert seed == "#cloud-config\nhello: 1\n"
    assert made.lxc("config", "get", "tpl", "volatile.apply_template") == "\n"
    made.lxc("stop", "-f", "tpl")
    made.lxc("rename", "tpl", "other")
    made.lxc("start", "other")
    assert made.lxc("exec", "other", "--", "cat", "/etc/hostname") == "other-rename\n"


def test_what_cannot_be_is_refused_as_lxd_refuses_it(made: Podium) -> None:
    """The sentences of LXD 5.0.2; a template that is wrong names itself and its line."""

    def refused(*argv: str, input: bytes = b"") -> str:
        done = made.run(*argv, input=input)
        assert done.returncode == 1
        return done.stderr.decode().splitlines()[0]

    assert refused("config", "template", "show", "tpl", "no.tpl") == 'Error: Template "no.tpl" not found'
    assert refused("config", "template", "delete", "tpl", "no.tpl") == 'Error: Template "no.tpl" not found'
    assert refused("config", "template", "create", "tpl", "a/b") == "Error: Invalid template filename"
    assert refused("config", "metadata", "show", "none") == "Error: Instance not found"
    made.lxc("config", "metadata", "edit", "tpl", input=METADATA)
    assert "hostname.tpl" in refused("start", "tpl")
    made.lxc("config", "template", "edit", "tpl", "hostname.tpl", input=b'\n{% include "/etc/shadow" %}')
    made.lxc("config", "template", "edit", "tpl", "cloud-init-user.tpl", input=USER)
    assert "line 2: Tag 'include' is not available" in refused("start", "tpl")
    assert made.lxc("list", "tpl", "-f", "csv", "-c", "s") == "STOPPED\n"


def test_metadata_is_patched_over_rest(made: Podium) -> None:
    """What is not given stays, within properties and templates too."""
    path = "/1.0/instances/tpl/metadata"
    before = json.loads(made.lxc("query", path))
    made.lxc("query", "-X", "PATCH", "-d", '{"properties": {"a": "b"}}', path)

    after = json.loads(made.lxc("query", path))
    assert after == {**before, "properties": {**before["properties"], "a": "b"}}
