"""Images of other servers through the REST API, as the stock client asks for them."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.e2e.conftest import Podium
from tests.fakes.image_server import METADATA, ImageServer, serving, tar

_WHOLE = tar({"metadata.yaml": METADATA, "rootfs/etc/os-release": b"x"})


@pytest.fixture
def server(podium: Podium) -> Iterator[ImageServer]:
    with serving() as found:
        found.offer("split")
        found.offer_unified("whole", _WHOLE)
        yield found
    for image in podium.rest.call("GET", "/1.0/images?recursion=1"):
        if image["properties"].get("os") == "Mini":
            podium.lxc("image", "delete", image["fingerprint"])


def _source(server: ImageServer, alias: str) -> dict[str, Any]:
    return {
        "type": "image",
        "mode": "pull",
        "protocol": "simplestreams",
        "server": server.url,
        "alias": alias,
    }


@pytest.mark.parametrize("alias", ["split", "whole"])
def test_an_image_is_pulled_by_its_alias(podium: Podium, server: ImageServer, alias: str) -> None:
    done = podium.rest.call("POST", "/1.0/images", {"source": _source(server, alias), "auto_update": True})

    image = podium.rest.call("GET", f"/1.0/images/{done['metadata']['fingerprint']}")
    assert image["properties"]["os"] == "Mini" and image["auto_update"]
    assert image["update_source"]["alias"] == alias and image["update_source"]["server"] == server.url


def test_eight_launches_of_one_image_bring_it_once(podium: Podium, server: ImageServer) -> None:
    """The network and the server are spared, and none of the eight fails for another one's download."""
    names = [f"pulled{number}" for number in range(8)]

    def launch(name: str) -> None:
        podium.rest.call("POST", "/1.0/instances", {"name": name, "source": _source(server, "whole")})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(launch, names))

    assert sorted(podium.lxc("list", "pulled", "-c", "n", "-f", "csv").split()) == names
    assert server.asked.count("/whole") == 1
    podium.lxc("delete", *names)


def test_what_cannot_be_brought_says_why_and_leaves_nothing(podium: Podium, server: ImageServer) -> None:
    server.files["/whole"] = b"x" * len(server.files["/whole"])
    for alias, why in (("whole", "another hash"), ("none", "offers no image")):
        body = {"name": "pulled", "source": _source(server, alias)}
        with pytest.raises(Exception, match=why):
            podium.rest.call("POST", "/1.0/instances", body)

    assert podium.run("info", "pulled").returncode == 1
    body = {"source": {"type": "url", "url": f"{server.url}/whole"}}
    with pytest.raises(Exception, match="address inside"):
        podium.rest.call("POST", "/1.0/images", body)
