"""Options of devices: what LXD refuses is refused with its sentence."""

from __future__ import annotations

import pytest

from core.configkeys.devices.registry import TYPES, check_devices, check_instance_devices, without_empty
from core.errors import Invalid

_VALUE = "Invalid value for device option "
_OWNER = "Only proxy devices for non-abstract unix sockets can carry uid, gid, or mode properties"
_HEADER = "The PROXY header can only be sent to tcp servers in non-nat mode"


def _words(kind: str, text: str) -> str:
    options = dict(word.split("=", 1) for word in text.split())
    with pytest.raises(Invalid) as caught:
        check_devices({"d1": {"type": kind, **options}})
    return caught.value.message.removeprefix('Device validation failed for "d1": ')


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        ("", "", 'Failed loading device "d1": Missing device type in config'),
        ("teapot", "", 'Failed loading device "d1": Unsupported device type'),
        ("gpu", "bogus=1", 'Invalid device option "bogus"'),
        ("none", "x=y", 'Invalid device option "x"'),
        ("pci", "address=0000:00:01.0", "Unsupported device type"),
        ("unix-char", "", 'Unix device entry is missing the required "source" or "path" property'),
        ("unix-char", "path=/dev/x mode=0888", _VALUE + '"mode": Invalid value for an octal file mode'),
        ("unix-char", "path=/dev/x uid=-1", _VALUE + '"uid": Invalid value for a UNIX ID'),
        ("unix-char", "path=/dev/x major=x", _VALUE + '"major": Invalid value for a UNIX device number'),
        ("unix-char", "path=/dev/x required=x", _VALUE + '"required": Invalid value for a boolean "x"'),
        ("unix-block", "path=/x source=/etc/x", _VALUE + '"source": Path needs to be in /dev'),
        ("unix-hotplug", "", "Unix hotplug devices require a vendorid or a productid"),
        ("usb", "vendorid=zz", _VALUE + '"vendorid": Invalid value, must be four lower case hex characters'),
        ("usb", "busnum=1", 'Invalid device option "busnum"'),
        ("gpu", "id=0 pci=0000:00:01.0", 'Cannot use "id" when when "pci" is set'),
        ("gpu", "id=0 vendorid=1234", 'Cannot use "vendorid" when when "id" is set'),
        ("gpu", "pci=foo", _VALUE + '"pci": Invalid PCI address'),
        ("gpu", "gputype=mdev", "Unsupported device type"),
        ("gpu", "gputype=mig", 'Either "mig.uuid" or both "mig.gi" and "mig.ci" must be set'),
        ("gpu", "gputype=mig mig.uuid=x", _VALUE + '"mig.uuid": Invalid UUID'),
        ("tpm", "", "Failed to validate config: " + _VALUE + '"path": Required value'),
        ("tpm", "path=/dev/tpm0", "Failed to validate config: " + _VALUE + '"pathrm": Required value'),
        ("infiniband", "", 'Failed loading device "d1": Unsupported device type'),
        ("infiniband", "nictype=physical", _VALUE + '"parent": Required value'),
        ("infiniband", "nictype=physical parent=ib0 mtu=foo", _VALUE + '"mtu": Invalid MTU "foo"'),
    ],
)
def test_a_device_that_cannot_be_is_refused_in_the_words_of_lxd(kind: str, options: str, words: str) -> None:
    """Recorded from LXD 5.0.2; scripts and people look for these."""
    assert _words(kind, options) == words


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("", _VALUE + '"listen": Unknown protocol type ""'),
        ("listen=tcp:127.0.0.1:8080", _VALUE + '"connect": Unknown protocol type ""'),
        ("listen=tcp:127.0.0.1", _VALUE + '"listen": address 127.0.0.1: missing port in address'),
        ("listen=tcp:localhost:80", _VALUE + '"listen": Not an IP address "localhost"'),
        ("listen=unix:", _VALUE + '"listen": Missing address'),
        ("listen=tcp:127.0.0.1:x", _VALUE + '"listen": strconv.ParseInt: parsing "x": invalid syntax'),
        ("listen=tcp:127.0.0.1:9-8", _VALUE + '"listen": End port should be higher than start port'),
        ("listen=tcp:127.0.0.1:1-9999", _VALUE + '"listen": At most 4096 ports are possible'),
        ("listen=tcp:[::1%eth0]:80", _VALUE + '"listen": Not an IP address "::1%eth0"'),
        (
            "listen=tcp:127.0.0.1:8 connect=tcp:127.0.0.1:80-81",
            "Mismatch between listen port(s) and connect port(s) count",
        ),
        ("listen=tcp:127.0.0.1:8 connect=tcp:127.0.0.1:80 uid=0", _OWNER),
        ("listen=unix:@x connect=tcp:127.0.0.1:80 mode=0600", _OWNER),
        ("listen=tcp:127.0.0.1:8 connect=udp:127.0.0.1:80 proxy_protocol=true", _HEADER),
        (
            "listen=tcp:127.0.0.1:8 connect=tcp:127.0.0.1:80 bind=foo",
            _VALUE + '"bind": Invalid binding side given. Must be "host" or "instance"',
        ),
        (
            "listen=tcp:127.0.0.1:8 connect=tcp:127.0.0.1:80 nat=true bind=instance",
            "Only host-bound proxies can use NAT",
        ),
        (
            "listen=tcp:0.0.0.0:8 connect=tcp:127.0.0.1:80 nat=true",
            'Cannot listen on wildcard address "0.0.0.0" when in nat mode',
        ),
        (
            "listen=unix:/x connect=tcp:127.0.0.1:80 nat=true",
            "Proxying unix <-> tcp is not supported when using NAT",
        ),
        (
            "listen=tcp:10.1.1.1:80 connect=tcp:[::]:80 nat=true",
            "Cannot mix IP versions between listen and connect in nat mode",
        ),
    ],
)
def test_a_proxy_that_cannot_be_is_refused_in_the_words_of_lxd(options: str, words: str) -> None:
    """Recorded from LXD 5.0.2 as well."""
    assert _words("proxy", options) == words


@pytest.mark.parametrize("kind", sorted(TYPES))
@pytest.mark.parametrize("value", ["x\nlxc.hook.start-host = /bin/sh", "x\0y", "x" * 5000])
def test_no_option_of_any_type_takes_what_breaks_a_line(kind: str, value: str) -> None:
    """Whatever generates a file from it later, no value is a line of its own (CVE-2026-23953)."""
    for option in (*TYPES[kind].options, "user.x"):
        with pytest.raises(Invalid):
            check_devices({"d1": {"type": kind, option: value}})


def test_instances_say_that_it_is_their_devices() -> None:
    """LXD begins the sentence so for instances, and without these words for profiles."""
    with pytest.raises(Invalid, match=r'^Invalid devices: Device validation failed for "d1": '):
        check_instance_devices({"d1": {"type": "usb", "x": "y"}})


def test_an_empty_value_unsets_an_option_and_nothing_else() -> None:
    """A name that is no option is wrong without a value too."""
    found = without_empty({"d1": {"type": "unix-char", "path": "/dev/x", "uid": "", "foo": ""}})
    assert found == {"d1": {"type": "unix-char", "path": "/dev/x", "foo": ""}}


@pytest.mark.parametrize("name", ["", "x" * 64, ".x", "a/../b", "a b", "x" * 70, "é"])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(Invalid):
        check_devices({name: {"type": "none"}})
