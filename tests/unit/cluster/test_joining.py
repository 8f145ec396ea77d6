"""Under which names and addresses members join, and which etcds vote."""

from __future__ import annotations

import pytest

from core.errors import Invalid
from services.cluster.domain import joining


@pytest.mark.parametrize("name", ["m1", "a", "web-3", "x" * 63])
def test_names_that_a_member_can_have(name: str) -> None:
    assert joining.member_name(name) == name


@pytest.mark.parametrize("name", ["", "-a", "a-", "a/b", "a.b", "ä", "x" * 64, "a\n", "a,b=c"])
def test_names_that_no_member_can_have(name: str) -> None:
    with pytest.raises(Invalid):
        joining.member_name(name)


@pytest.mark.parametrize("address", ["10.0.0.1:9470", "[fd00::1]:9470", "m1.example:1"])
def test_addresses_that_others_reach(address: str) -> None:
    assert joining.rpc_address(address) == address


@pytest.mark.parametrize(
    "address",
    [
        *("", "10.0.0.1", ":9470", "10.0.0.1:0", "10.0.0.1:x", "10.0.0.1:65530", "10.0.0.1:1²"),
        *("127.0.0.1:9470", "localhost:9470", "0.0.0.0:9470", "[::]:9470"),
        *("a,b=http://c:1", "a b:1", "a/b:1", "user@a:1", "x" * 254 + ":1", "a\n:1"),
    ],
)
def test_addresses_that_nobody_reaches_or_that_mean_more(address: str) -> None:
    """It becomes a word of etcd's command line, so that it must be one address and nothing else."""
    with pytest.raises(Invalid):
        joining.rpc_address(address)


def test_there_are_one_or_three_votes() -> None:
    """A second etcd only follows, a third brings both their votes, and a fourth member runs none."""
    assert [joining.runs_etcd(there) for there in range(1, 5)] == [True, True, False, False]
    assert [joining.votes_first(there) for there in range(1, 4)] == [False, True, False]
    assert [joining.all_vote(there) for there in range(1, 4)] == [False, False, True]
