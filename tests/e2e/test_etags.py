"""A change is made on the version that its client saw, or refused: nobody overwrites what he has not read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e import raw_http
from tests.e2e.conftest import Podium
from tests.e2e.raw_http import Reply

NAME, PATH = "t-etags", "/1.0/instances/t-etags"


@pytest.fixture(scope="module")
def server(podium: Podium) -> Iterator[Podium]:
    podium.lxc("init", "debian/12", NAME)
    yield podium
    podium.lxc("delete", "--force", NAME)


def test_a_version_that_was_seen_is_changed_once(server: Podium) -> None:
    body, tag = seen(server)
    first, second = put(server, body, tag, "first"), put(server, body, tag, "second")
    assert (first.status, second.status) == (202, 412)
    assert second.envelope["error"].startswith("ETag doesn't match")
    assert server.lxc("config", "get", NAME, "user.by").strip() == "first"


def test_a_version_that_comes_again_may_be_changed_again(server: Podium) -> None:
    body, tag = seen(server)
    put(server, body, tag, "one")
    server.lxc("config", "set", NAME, f"user.by={body['config'].get('user.by', '')}")
    assert seen(server)[1] == tag
    assert put(server, body, tag, "two").status == 202


def test_no_tag_means_any_version_and_an_unknown_one_none(server: Podium) -> None:
    body, _ = seen(server)
    assert put(server, body, "", "any").status == 202
    assert put(server, body, "0" * 64, "none").status == 412


def test_the_tag_of_one_that_is_gone_changes_no_new_one(server: Podium) -> None:
    body, tag = seen(server)
    server.lxc("delete", NAME)
    assert put(server, body, tag, "gone").status == 404
    server.lxc("init", "debian/12", NAME)
    _, now = seen(server)
    assert put(server, body, tag, "gone").status == (202 if now == tag else 412)


def seen(server: Podium) -> tuple[dict[str, Any], str]:
    reply = raw_http.send(server.state_dir / "unix.socket", "GET", PATH)
    return reply.envelope["metadata"], reply.headers["etag"].strip('"')


def put(server: Podium, body: dict[str, Any], tag: str, by: str) -> Reply:
    """Send the change, and return the answer when it is done."""
    wanted = {**body, "config": {**body["config"], "user.by": by}}
    headers = {"If-Match": f'"{tag}"'} if tag else {}
    path = server.state_dir / "unix.socket"
    reply = raw_http.send(path, "PUT", PATH, json.dumps(wanted).encode(), headers)
    if reply.status == 202:
        done = raw_http.send(path, "GET", f"{reply.envelope['operation']}/wait").envelope["metadata"]
        assert done["status"] == "Success", done
    return reply
