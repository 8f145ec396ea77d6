"""The filter of system calls that keys ask for."""

from __future__ import annotations

from services.runtime.domain.seccomp import DANGEROUS, names, policy
from services.runtime.engine.lxc import _HERE
from services.runtime.kernel.knows import HostKernel

_KEY = "security.syscalls."


def test_without_keys_the_filter_is_that_of_all() -> None:
    assert policy({}) == ""
    assert policy({f"{_KEY}deny_default": "true"}) == ""


def test_what_all_have_is_what_a_longer_list_begins_with() -> None:
    """A deny list must not take away the default one."""
    shared = (_HERE / "seccomp.policy").read_text()
    assert policy({f"{_KEY}deny": "keyctl"}) == f"{shared}keyctl errno 38\n"


def test_older_names_and_actions_are_taken() -> None:
    text = policy({f"{_KEY}blacklist": "keyctl errno 1\nuname kill", f"{_KEY}blacklist_default": "false"})
    assert text == "2\ndenylist\n[all]\nkeyctl errno 1\nuname kill\n"


def test_an_allow_list_is_all_that_works() -> None:
    text = policy({f"{_KEY}allow": "read\nwrite"})
    assert text == "2\nallowlist\n[all]\nread\nwrite\n"
    assert not any(line in text for line in DANGEROUS)


def test_names_are_those_of_the_kernel() -> None:
    """A mistyped name in a deny list would deny nothing."""
    config = {f"{_KEY}deny": "keyctl errno 1\nkeyctrl"}
    assert names(config) == {"keyctl", "keyctrl"}
    assert HostKernel().unknown_syscalls(names(config)) == ["keyctrl"]
