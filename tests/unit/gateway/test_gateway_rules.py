"""Rules at the door: who may see what, filters, ETags, hostile bodies."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextvars import copy_context
from typing import Any
from urllib.parse import quote

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from core.errors import Forbidden, Invalid, NotFound, PodiumError
from core.operations.operation import Operation
from core.rpc.identity import Identity, set_identity
from gateway.auth import Caller, require
from gateway.lxd import etag, filters
from gateway.lxd import request as req
from gateway.lxd.feed import Listener, Message
from gateway.lxd.handlers import snapshots, volumesnapshots
from gateway.lxd.handlers.certificates import certificate_bytes
from gateway.lxd.handlers.publish import source_of
from gateway.lxd.missing import unknown_project
from gateway.lxd.routes import table
from gateway.lxd.views.operations import operation_json
from gateway.lxd.views.others import leases_json, used_by
from gateway.web import resource, split_address
from protos.podium.network.v1 import network_pb2 as network
from protos.podium.runtime.v1 import snapshot_pb2, volume_pb2

CONFINED = Caller(Identity("aa", "tls", ""), trusted=True, projects=("web",))
ADMIN = Caller(Identity("root", "unix", "@"), trusted=True)
STRANGER = Caller(Identity("", "tls", ""), trusted=False)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("", 0),
        ("0001-01-01T00:00:00Z", 0),
        ("0001-01-01T00:00:00+23:59", 0),
        ("1960-01-01T00:00:00Z", 0),
        ("1970-01-02T00:00:00+00:00", 86400),
        ("9999-12-31T23:59:59Z", 253402300799),
    ],
)
def test_times_are_read_as_seconds(text: str, seconds: int) -> None:
    assert req.when({"expires_at": text}, "expires_at") == seconds


@pytest.mark.parametrize("text", ["9999-12-31T23:59:59-23:59", "99999-01-01T00:00:00Z", "x", "2030-02-30"])
def test_a_time_that_no_message_can_hold_is_refused(text: str) -> None:
    """It crashed the request; as the expiry of a volume's snapshot it broke every list of them."""
    with pytest.raises(Invalid):
        req.when({"expires_at": text}, "expires_at")


@pytest.mark.parametrize(
    ("caller", "access", "project"),
    [
        (STRANGER, "trusted", "default"),
        (STRANGER, "project", "default"),
        (STRANGER, "metrics", "default"),
        (CONFINED, "admin", "web"),
        (CONFINED, "project", "default"),
        (CONFINED, "metrics", "default"),
    ],
)
def test_a_caller_without_the_right_is_refused(caller: Caller, access: str, project: str) -> None:
    with pytest.raises(Forbidden):
        require(caller, access, project)


def test_a_confined_caller_works_in_its_own_project() -> None:
    require(CONFINED, "project", "web")


def test_a_confined_caller_may_not_ask_for_all_projects() -> None:
    with pytest.raises(Forbidden):
        require(CONFINED, "project", "web", everywhere=True)
    require(ADMIN, "project", "default", everywhere=True)


def test_a_confined_caller_sees_operations_of_its_projects_and_its_own_only() -> None:
    assert CONFINED.may_see("web")
    assert CONFINED.may_see("default", owner="aa")
    assert not CONFINED.may_see("default", owner="root")
    assert not CONFINED.may_see("", owner="root")
    assert ADMIN.may_see("")


@pytest.mark.parametrize(("project", "told"), [("web", True), ("", False), ("default", False)])
def test_events_of_no_project_do_not_reach_a_confined_listener(project: str, told: bool) -> None:
    listener = Listener(frozenset({"operation"}), "web", lambda: None, reader="aa")
    assert listener.wants("operation", project) == told


@pytest.mark.parametrize(("reader", "told"), [(None, True), ("aa", True), ("bb", False)])
def test_the_secrets_of_a_command_are_told_to_whom_it_belongs(reader: str | None, told: bool) -> None:
    """Who shares a project with an administrator must not type, or read, in the administrator's session."""
    listener = Listener(frozenset({"operation"}), "web", lambda: None, reader=reader)
    shown = operation_json(
        Operation("1", "exec", "running", project="web", metadata={"fds": {"0": "hush"}, "a": 1})
    )
    listener.tell(Message("operation", "web", shown, 0.0, owner="aa"))

    line = listener.queue.get_nowait() or ""

    assert ("hush" in line) == told
    assert '"a":1' in line


@pytest.mark.parametrize(
    ("projects", "seen"),
    [
        (None, ["default", "default", "web", "we%62"]),
        (("web",), ["web", "we%62"]),
        (("default",), ["default", "default"]),
        ((), []),
    ],
)
def test_a_confined_caller_is_not_told_what_others_have(
    projects: tuple[str, ...] | None, seen: list[str]
) -> None:
    """Pools and networks are shared; the names of those who use them are not."""
    references = ["instances/default", "profiles/default", "instances/web?project=web"]
    leases = [network.Lease(hostname=name, project=name) for name in ("default", "web", "")]
    alone = copy_context()
    alone.run(set_identity, Identity("aa", "tls", "", projects))

    urls = alone.run(used_by, [*references, "instances/we%62?project=we%62"])
    names = {lease["hostname"] for lease in alone.run(leases_json, leases)}

    assert [url.split("/")[3].split("?")[0] for url in urls] == seen
    assert names == {"", *(seen if projects is None else projects)} & {"", "default", "web"}


@pytest.mark.parametrize(("caller", "may"), [(ADMIN, True), (CONFINED, True), (STRANGER, False)])
def test_the_secrets_of_an_operation_are_for_its_owner_and_administrators(caller: Caller, may: bool) -> None:
    assert caller.may_use("aa") == may
    assert not CONFINED.may_use("bb")


def test_a_listener_that_does_not_read_is_disconnected_and_holds_no_more() -> None:
    """Memory of the gateway must not grow by clients that sleep."""
    hung_up: list[bool] = []
    listener = Listener(frozenset({"operation"}), "", lambda: hung_up.append(True))
    message = Message("operation", "", {}, 0.0)
    for _ in range(10_000):
        listener.tell(message)
    assert not hung_up

    listener.tell(message)

    assert hung_up and listener.queue.qsize() == 10_000


def test_only_public_images_are_shown_to_guests_of_a_project() -> None:
    metrics = Caller(Identity("bb", "tls", ""), trusted=True, kind="metrics")
    assert [c.is_guest_of("default") for c in (STRANGER, CONFINED, metrics, ADMIN)] == [
        True,
        True,
        True,
        False,
    ]
    assert not CONFINED.is_guest_of("web")


@pytest.mark.parametrize("text", ["a", "****", "\u00e9", "YWJj\n-----"])
def test_a_certificate_that_is_not_base64_is_refused_not_crashed_on(text: str) -> None:
    with pytest.raises(Invalid):
        certificate_bytes(text)


def test_no_route_is_listed_twice() -> None:
    found = [(method, path) for method, path, _, _ in table()]
    assert len(found) == len(set(found))


ITEM: dict[str, Any] = {"name": "c1", "status": "Running", "config": {"limits.cpu": "2"}, "ephemeral": False}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name eq c1", True),
        ("name ne c1", False),
        ("not name eq c1", False),
        ("status eq running", True),
        ("config.limits.cpu eq 2", True),
        ("ephemeral eq false", True),
        ("name eq c2 or status eq Running", True),
        ("name eq c1 and status eq Stopped", False),
        ("name eq c.*", True),
        ("name eq c", False),
    ],
)
def test_filters_select_as_lxd_does(text: str, expected: bool) -> None:
    assert filters.parse(text)(ITEM) is expected


@pytest.mark.parametrize(
    "text", ["name", "name eq", "name like c1", "name eq c1 xor a eq b", "name eq 'c1", "x" * 5000]
)
def test_a_broken_filter_is_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(Invalid):
        filters.parse(text)


def test_an_etag_does_not_depend_on_the_order_of_keys() -> None:
    assert etag.of({"a": "1", "b": "2"}) == etag.of({"b": "2", "a": "1"})
    assert etag.of({"a": "1"}) != etag.of({"a": "2"})


@pytest.mark.parametrize("data", [b"", b"[]", b"null", b"{", b"\xff", b"[" * 100_000])
def test_a_body_that_is_not_an_object_is_refused(data: bytes) -> None:
    with pytest.raises(Invalid):
        req.parse_object(data)


@pytest.mark.parametrize("value", [1, True, [], {"a": 1}, {"a": []}])
def test_a_map_of_strings_takes_nothing_else(value: Any) -> None:
    with pytest.raises(Invalid):
        req.text_map({"config": value}, "config")


@pytest.mark.parametrize("kind", ["instance.create", "instance.restore", "instance.send", "snapshot.delete"])
def test_an_instance_is_named_under_both_of_its_paths(kind: str) -> None:
    shown = operation_json(Operation(id="x", kind=kind, project="web", resources={"instances": ("c1",)}))
    assert shown["resources"] == {
        "instances": ["/1.0/instances/c1"],
        "containers": ["/1.0/containers/c1"],
    }
    assert (shown["status"], shown["status_code"]) == ("Pending", 105)


@pytest.mark.parametrize(
    "value",
    [
        *("(a+)+", "(a|a)*b", "a*a*a*a*b", "(x+x+)+y", ".*a.*a.*a.*b", "a?a?a?a?a?a?", "a*a*a*b$"),
        *(
            "(.*|.*)(.*|.*)(.*|.*)b",
            "^(a|a.|.)(a|a.|.)" + "(a|a.|.)" * 20 + "b$",
            "(a*|b)(a*|b)(a*|b)(a*|b)c",
        ),
    ],
)
def test_an_expression_that_could_take_for_ever_is_refused(value: str) -> None:
    with pytest.raises(Invalid, match="repetitions"):
        filters.parse(f"name eq {value}")


def test_a_filter_ends_in_time_however_much_there_is_to_compare() -> None:
    """While one runs nobody else is answered, and any client of a project may send one."""
    holds = filters.parse(" or ".join(["name eq a.*a.*b"] * 200))
    began = time.thread_time()
    with pytest.raises(Invalid, match="too long to compare"):
        for _ in range(10_000):
            holds({"name": "a" * 128})
    assert time.thread_time() - began < 2


@pytest.mark.parametrize(
    ("value", "name", "holds"),
    [
        ("(^web.*$|^web.*.*)", "web1", True),
        ("(^.*eb.*$|^.*eb.*.*)", "web1", True),
        ("c[0-9]", "c7", True),
        ("a|b", "xb", False),
        ("(a|b)c", "bc", True),
        ("(a|b)(c|d)(e|f)", "bde", True),
        ("(web|db).*", "db7", True),
        ("web", "WEB", True),
        ("(", "(", True),
        ("^.*foo.*bar.*$", "1foo2bar3", True),
    ],
)
def test_expressions_that_clients_send_still_match(value: str, name: str, holds: bool) -> None:
    assert filters.parse(f'name eq "{value}"')({"name": name}) == holds


@pytest.mark.parametrize(
    ("address", "found"),
    [
        (":8443", (None, 8443)),
        ("[::]:8443", (None, 8443)),
        ("127.0.0.1:1", ("127.0.0.1", 1)),
        ("[::1]:1", ("::1", 1)),
        ("0.0.0.0:1", ("0.0.0.0", 1)),
    ],
)
def test_an_address_of_all_families_is_all_families(address: str, found: tuple[str | None, int]) -> None:
    """Go listens for both at [::], as does what people copy from LXD's manual."""
    assert split_address(address) == found


@pytest.mark.parametrize(
    ("method", "path", "said"),
    [
        ("GET", "/1.0/instances/c1", "Instance not found"),
        ("POST", "/1.0/instances", "Failed loading project: Project not found"),
        ("GET", "/1.0/images", "Check if project has images: fetch project: Project not found"),
        ("GET", "/1.0/profiles", 'Failed loading project "nosuch": Project not found'),
        ("GET", "/1.0/networks/br0", 'Failed to load project "nosuch": Project not found'),
        ("GET", "/1.0/storage-pools/p/volumes", "Project not found"),
        ("POST", "/1.0/storage-pools/p/volumes/custom", 'Failed to load project "nosuch": Project not found'),
        (
            "GET",
            "/1.0/storage-pools/p/volumes/custom/v",
            'Failed to load project "nosuch": Project not found',
        ),
        ("GET", "/1.0/events", "Project not found"),
    ],
)
def test_an_unknown_project_is_named_as_lxd_names_it(method: str, path: str, said: str) -> None:
    assert unknown_project(method, path, "nosuch") == said


@pytest.mark.parametrize(
    "path",
    ["/", "/1.0", "/1.0/", "/1.0/projects/default", "/1.0/storage-pools", "/1.0/storage-pools/p/resources"]
    + [
        f"/1.0/{kind}"
        for kind in ("operations", "warnings", "certificates/ab", "cluster", "resources", "metrics")
    ],
)
def test_what_is_the_servers_is_told_also_to_who_names_a_project_that_went(path: str) -> None:
    """The stock client sends the project that it was switched to with every request."""
    assert unknown_project("GET", path, "nosuch") == ""


@pytest.mark.parametrize(
    ("source", "error", "said"),
    [
        ({"type": "instance"}, Invalid, "No source provided"),
        ({"type": "snapshot", "name": ""}, Invalid, "No source provided"),
        ({"type": "instance", "name": "c1/s0"}, Invalid, "This is a snapshot"),
        ({"type": "container", "name": "c1/"}, Invalid, "This is a snapshot"),
        ({"type": "snapshot", "name": "c1"}, Invalid, "Not a snapshot"),
        ({"type": "snapshot", "name": "c1/"}, NotFound, "Instance not found"),
    ],
)
def test_what_is_published_is_what_its_type_says(
    source: dict[str, str], error: type[PodiumError], said: str
) -> None:
    """An image of something else than was meant would be found out late."""
    with pytest.raises(error) as caught:
        source_of(source)
    assert caught.value.message == said


def test_an_instance_or_a_snapshot_is_published_by_its_name() -> None:
    assert source_of({"type": "virtual-machine", "name": "c1"}) == ("c1", "")
    assert source_of({"type": "snapshot", "name": "c1/s0"}) == ("c1", "s0")


@pytest.mark.parametrize(
    ("of", "kind"),
    [(snapshots.etag_of, snapshot_pb2.Snapshot), (volumesnapshots.etag_of, volume_pb2.VolumeSnapshot)],
)
def test_a_snapshot_that_lives_to_the_last_year_can_be_read(of: Callable[[Any], str], kind: Any) -> None:
    """Its nanoseconds are more than 64 bits hold: such a snapshot was there and could not be shown."""
    last = kind(name="s0")
    req.put_time(last.expires_at, req.when({"expires_at": "9999-12-31T23:59:59Z"}, "expires_at"))
    assert of(last) != of(kind(name="s0"))


@pytest.mark.parametrize("name", ["{{ x }}", "{% x %}", "a{b", "}", "{name}", "a%b", "a?b", "a#b", "é", " "])
async def test_what_may_be_called_so_can_be_reached(name: str) -> None:
    """Profiles and volumes may have any printable name; one that no route leads to could never be deleted."""
    router = web.Application().router
    router.add_get(resource("/1.0/profiles/{name}/{snapshot}/x"), volumesnapshots.put_snapshot)

    request = make_mocked_request("GET", f"/1.0/profiles/{quote(name)}/{quote(name)}/x")

    assert dict(await router.resolve(request)) == {"name": name, "snapshot": name}
    request = make_mocked_request("GET", "/1.0/profiles/a/b/c/x")
    assert (await router.resolve(request)).http_exception


def test_what_was_shown_is_kept_by_project_name_and_tag_and_not_for_ever() -> None:
    shown, request = etag.Shown(), make_mocked_request("PUT", "/", headers={"If-Match": '"t1"'})
    shown.keep("p", "web", "t1", "first")
    assert shown.seen_by(request, "p", "web") == "first"
    assert shown.seen_by(request, "other", "web") is None
    assert shown.seen_by(make_mocked_request("PUT", "/"), "p", "web") is None
    for number in range(64):
        shown.keep("p", "web", f"n{number}", "later")
    assert shown.seen_by(request, "p", "web") is None
