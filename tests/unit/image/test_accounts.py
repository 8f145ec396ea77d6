"""Who an image's program runs as."""

from __future__ import annotations

import pytest

from core.errors import Invalid
from services.image.domain.accounts import Account, find

_PASSWD = "root:x:0:0:root:/root:/bin/sh\nbroken:x:zero:0::/:\nweb:x:33:44::/srv:/bin/sh\nodd:x:5:5::no:\n"
_GROUP = "root:x:0:\nadm:x:4:web\n"


@pytest.mark.parametrize(
    ("user", "account"),
    [
        ("", Account(0, 0, "/root")),
        ("root", Account(0, 0, "/root")),
        ("web", Account(33, 44, "/srv")),
        ("33", Account(33, 44, "/srv")),
        ("web:adm", Account(33, 4, "/srv")),
        ("web:9", Account(33, 9, "/srv")),
        ("1234", Account(1234, 0, "/")),
        ("1234:5", Account(1234, 5, "/")),
        ("odd", Account(5, 5, "/")),
    ],
)
def test_an_account_is_found_by_name_or_id(user: str, account: Account) -> None:
    assert find(user, _PASSWD, _GROUP) == account


@pytest.mark.parametrize("user", ["broken", "nobody", "-1", "web:none", "99999999999"])
def test_an_account_that_is_not_known_is_refused(user: str) -> None:
    with pytest.raises(Invalid):
        find(user, _PASSWD, _GROUP)
