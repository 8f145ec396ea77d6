"""Parts of lists, as a client asks for them and as it is led on."""

from __future__ import annotations

import pytest
from aiohttp.test_utils import make_mocked_request

from core.errors import Invalid
from core.records import Instance
from core.state.repository import Entry
from gateway.lxd.pages import NEXT, Fields, Page
from services.runtime.servicer.instances import _page


def asked(query: str) -> Page:
    return Page.of(make_mocked_request("GET", f"/1.0/instances?{query}"))


def test_pages_lead_to_each_instance_once_whatever_comes_and_goes() -> None:
    def there(*names: str) -> list[Entry[Instance]]:
        return [Entry(Instance(project="p/1", name=name), 1) for name in names]

    page, place = _page(there("a", "b", "c", "d"), "", 2)
    assert [e.record.name for e in page] == ["a", "b"]
    page, place = _page(there("aa", "c", "d", "e"), place, 2)
    assert [e.record.name for e in page] == ["c", "d"]
    page, place = _page(there("aa", "e"), place, 2)
    assert ([e.record.name for e in page], place) == (["e"], "")


def test_the_way_on_keeps_the_revision_of_the_first_page() -> None:
    assert asked("limit=2").following("default/b", 7) == {NEXT: "7:default/b"}
    assert asked("limit=2&continue=7:default/b").following("default/d", 9) == {NEXT: "7:default/d"}
    assert asked("limit=2&continue=7:default/b").following("", 9) == {}


@pytest.mark.parametrize("query", ["limit=0", "limit=x", "limit=-1", "limit=99999999999", "limit=%D9%A3",
                                   "continue=7", "continue=x:y", "continue=7:"])  # fmt: skip
def test_what_is_no_page_is_refused(query: str) -> None:
    with pytest.raises(Invalid):
        asked(query)


def test_only_what_is_asked_for_is_read_and_shown() -> None:
    def fields(query: str) -> Fields:
        return Fields.of(make_mocked_request("GET", f"/1.0/instances?recursion=2{query}"))

    state = {"status": "Running", "status_code": 103, "pid": 1, "cpu": {}, "network": {}, "disk": {}}
    assert (fields("").figures, fields("").snapshots, fields("").cut(state)) == ([], True, state)
    some = fields("&fields=state.network,snapshots")
    assert (some.figures, some.snapshots) == (["network"], True)
    assert set(some.cut(state)) == {"status", "status_code", "pid", "network"}
    assert fields("&fields=state").figures == ["disk", "network", "usage"]
    assert fields("&fields=").figures == ["none"] and not fields("&fields=").snapshots
    with pytest.raises(Invalid, match=r"Unknown field 'state.x'"):
        fields("&fields=state.x")
