"""Who guesses at the trust password is slowed down, and nobody else is."""

from __future__ import annotations

import pytest

from core.errors import Forbidden, LimitReached
from core.rpc.identity import Identity, set_identity
from services.cluster.domain.guesses import Guesses
from tests.unit.cluster.conftest import Cluster
from tests.unit.cluster.test_trust_store import certificate


def _guess(guesses: Guesses, address: str, *, times: int) -> float:
    """Return the second at which the last of so many tries was made, each as soon as it may be."""
    now = 0.0
    for _ in range(times):
        now += guesses.wait_s(address, now)
        guesses.count(address, now)
    return now


def test_a_few_mistakes_are_free() -> None:
    assert _guess(Guesses(), "192.0.2.1:1", times=10) == 0


def test_a_thousand_guesses_take_half_a_day() -> None:
    assert _guess(Guesses(), "192.0.2.1:1", times=1000) > 12 * 3600


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1:1", "192.0.2.1:2", True),
        ("192.0.2.1:1", "192.0.2.2:1", False),
        ("2001:db8::1:1", "2001:db8::ffff:2", True),
        ("2001:db8::1:1", "2001:db8:0:1::1:1", False),
        ("::ffff:192.0.2.1:1", "::ffff:192.0.2.2:1", False),
        ("192.0.2.1:1", "::ffff:192.0.2.1:1", True),
    ],
)
def test_a_guesser_is_known_by_its_address(one: str, other: str, same: bool) -> None:
    """All of a /64 is one machine's, and its own port is anybody's choice."""
    guesses = Guesses()
    for _ in range(12):
        guesses.count(one, 0)

    assert (guesses.wait_s(other, 0) > 0) == same


def test_a_flood_of_addresses_stays_small() -> None:
    guesses = Guesses()
    for number in range(10_000):
        guesses.count(f"10.0.{number >> 8}.{number & 255}:1", 0)

    assert len(guesses._tries) <= 4096


async def test_the_right_password_must_wait_too_after_many_wrong_ones(cluster: Cluster) -> None:
    """Else the wait would tell that the guess was wrong, and cost the guesser nothing."""
    await cluster.server.update({"core.trust_password": "pw"}, unchanged=[], merge=True, expected_revision=0)
    set_identity(Identity("x", "tls", "192.0.2.1:1", projects=()))
    for _ in range(10):
        with pytest.raises(Forbidden):
            await cluster.trust.redeem(certificate(), "wrong", "me")

    with pytest.raises(LimitReached, match="try again in"):
        await cluster.trust.redeem(certificate(), "pw", "me")
    set_identity(Identity("x", "tls", "192.0.2.2:1", projects=()))
    await cluster.trust.redeem(certificate(), "pw", "me")
