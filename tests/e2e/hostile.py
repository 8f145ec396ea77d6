"""What a hostile or broken client may send: the tables behind test_hostile_input.py."""

from __future__ import annotations

from typing import Any

LONG = "x" * 10_000
# What the attacked paths name: of each kind one object that nothing else needs.
VICTIMS = dict.fromkeys(("instances", "profiles", "projects", "storage-pools", "networks"), "victim")

# What a well-formed body of a route looks like: each field is attacked in turn with every other type.
INSTANCE = {
    "description": "", "architecture": "x86_64", "config": {"user.a": "1"}, "ephemeral": False,
    "devices": {"root": {"type": "disk", "path": "/", "pool": "default"}}, "profiles": ["default"],
}  # fmt: skip
PROFILE = {"description": "", "config": {"user.a": "1"}, "devices": {"eth0": {"type": "none"}}}
STATE = {"action": "freeze", "timeout": 1, "force": False, "stateful": False}
OBJECT = {"description": "", "config": {"user.a": "1"}}
ADDRESS_SET = {**OBJECT, "addresses": ["192.0.2.1"]}
ZONE_RECORD = {**OBJECT, "entries": [{"type": "A", "ttl": 300, "value": "192.0.2.1"}]}
FORWARD = {**OBJECT, "ports": [{"protocol": "tcp", "listen_port": "80", "target_address": "10.0.0.1"}]}
BALANCER = {
    **OBJECT,
    "backends": [{"name": "a", "target_address": "10.0.0.1", "target_port": "80"}],
    "ports": [{"protocol": "tcp", "listen_port": "80", "target_backend": ["a"]}],
}
ACL = {**OBJECT, "ingress": [{"action": "allow", "state": "enabled", "source": "10.0.0.1"}], "egress": []}
CERTIFICATE = {"name": "n", "type": "client", "restricted": False, "projects": ["default"]}
ALIAS = {"description": "", "target": "0" * 64}
EXEC = {
    "command": ["true"], "environment": {"A": "b"}, "interactive": False, "width": 80, "height": 25,
    "user": 0, "group": 0, "cwd": "/", "record-output": False, "wait-for-websocket": False,
}  # fmt: skip
METADATA = {
    "architecture": "x86_64", "creation_date": 1, "expiry_date": 0, "properties": {"a": "b"},
    "templates": {"/a": {"when": ["start"], "create_only": False, "template": "a", "properties": {"a": "b"}}},
}  # fmt: skip
_VOLUME = "/1.0/storage-pools/{name}/volumes/{type}/{volume}"
_BUCKETS = "/1.0/storage-pools/{name}/buckets"
_SNAPSHOT = "/1.0/instances/{name}/snapshots/{snapshot}"
EXPIRY = {"expires_at": "2030-01-01T00:00:00Z"}
BODIES: dict[tuple[str, str], dict[str, Any]] = {
    ("POST", "/1.0/instances"): {
        "name": "hostile",
        "type": "container",
        "source": {"type": "image", "alias": "none"},
        **INSTANCE,
    },
    ("PUT", "/1.0/instances"): {"state": STATE},
    ("PUT", "/1.0/instances/{name}"): INSTANCE,
    ("PATCH", "/1.0/instances/{name}"): INSTANCE,
    ("POST", "/1.0/instances/{name}"): {"name": "hostile", "migration": False},
    ("PUT", "/1.0/instances/{name}/state"): STATE,
    ("PUT", "/1.0/instances/{name}/metadata"): METADATA,
    ("PATCH", "/1.0/instances/{name}/metadata"): METADATA,
    ("POST", "/1.0/instances/{name}/exec"): EXEC,
    ("POST", "/1.0/instances/{name}/console"): {"width": 80, "height": 25, "type": "console"},
    ("PUT", "/1.0"): {"config": {"user.a": "1"}},
    ("PATCH", "/1.0"): {"config": {"user.a": "1"}},
    ("POST", "/1.0/certificates"): {**CERTIFICATE, "certificate": "bm8=", "token": False, "password": ""},
    ("PUT", "/1.0/certificates/{name}"): CERTIFICATE,
    ("PATCH", "/1.0/certificates/{name}"): CERTIFICATE,
    ("POST", "/1.0/images/aliases"): {"name": "hostile", **ALIAS},
    ("PUT", "/1.0/images/aliases/{name:.+}"): ALIAS,
    ("PATCH", "/1.0/images/aliases/{name:.+}"): ALIAS,
    ("POST", "/1.0/images/aliases/{name:.+}"): {"name": "hostile"},
    ("POST", "/1.0/images/{name}/export"): {
        "target": "https://127.0.0.1:1",
        "certificate": "",
        "secret": "x",
        "project": "",
        "profiles": [],
    },
    ("PUT", "/1.0/images/{name}"): {"public": False, "auto_update": False, "properties": {"a": "b"}},
    ("PATCH", "/1.0/images/{name}"): {"public": False, "auto_update": False, "properties": {"a": "b"}},
    ("POST", "/1.0/profiles"): {"name": "hostile", **PROFILE},
    ("PUT", "/1.0/profiles/{name}"): PROFILE,
    ("PATCH", "/1.0/profiles/{name}"): PROFILE,
    ("POST", "/1.0/profiles/{name}"): {"name": "hostile"},
    ("POST", "/1.0/projects"): {"name": "hostile", **OBJECT},
    ("PUT", "/1.0/projects/{name}"): OBJECT,
    ("PATCH", "/1.0/projects/{name}"): OBJECT,
    ("POST", "/1.0/projects/{name}"): {"name": "hostile"},
    ("POST", "/1.0/networks"): {"name": "hostile0", "type": "bridge", **OBJECT},
    ("PUT", "/1.0/networks/{name}"): OBJECT,
    ("PATCH", "/1.0/networks/{name}"): OBJECT,
    ("POST", "/1.0/networks/{name}"): {"name": "hostile1"},
    ("POST", "/1.0/networks/{name}/forwards"): {"listen_address": "192.0.2.66", **FORWARD},
    ("PUT", "/1.0/networks/{name}/forwards/{address}"): FORWARD,
    ("PATCH", "/1.0/networks/{name}/forwards/{address}"): FORWARD,
    ("POST", "/1.0/networks/{name}/load-balancers"): {"listen_address": "192.0.2.67", **BALANCER},
    ("PUT", "/1.0/networks/{name}/load-balancers/{address}"): BALANCER,
    ("PATCH", "/1.0/networks/{name}/load-balancers/{address}"): BALANCER,
    ("POST", "/1.0/network-zones"): {"name": "hostile.example", **OBJECT},
    ("PUT", "/1.0/network-zones/{name}"): OBJECT,
    ("PATCH", "/1.0/network-zones/{name}"): OBJECT,
    ("POST", "/1.0/network-zones/{name}/records"): {"name": "hostile", **ZONE_RECORD},
    ("PUT", "/1.0/network-zones/{name}/records/{record}"): ZONE_RECORD,
    ("PATCH", "/1.0/network-zones/{name}/records/{record}"): ZONE_RECORD,
    ("POST", "/1.0/network-address-sets"): {"name": "hostile", **ADDRESS_SET},
    ("PUT", "/1.0/network-address-sets/{name}"): ADDRESS_SET,
    ("PATCH", "/1.0/network-address-sets/{name}"): ADDRESS_SET,
    ("POST", "/1.0/network-address-sets/{name}"): {"name": "hostile"},
    ("POST", "/1.0/network-acls"): {"name": "hostile", **ACL},
    ("PUT", "/1.0/network-acls/{name}"): ACL,
    ("PATCH", "/1.0/network-acls/{name}"): ACL,
    ("POST", "/1.0/network-acls/{name}"): {"name": "hostile"},
    ("POST", "/1.0/storage-pools"): {"name": "hostile", "driver": "dir", **OBJECT},
    ("PUT", "/1.0/storage-pools/{name}"): OBJECT,
    ("PATCH", "/1.0/storage-pools/{name}"): OBJECT,
    ("PUT", _VOLUME): OBJECT,
    ("PATCH", _VOLUME): OBJECT,
    ("POST", _VOLUME): {"name": "hostile", "pool": "", "project": "", "migration": False},
    ("POST", f"{_VOLUME}/backups"): {
        "name": "hostile",
        "volume_only": True,
        "optimized_storage": False,
        **EXPIRY,
    },
    ("POST", f"{_VOLUME}/backups/{{backup}}"): {"name": "hostile"},
    ("POST", f"{_VOLUME}/snapshots"): {"name": "hostile", **EXPIRY},
    ("PUT", f"{_VOLUME}/snapshots/{{snapshot}}"): {"description": "", **EXPIRY},
    ("PATCH", f"{_VOLUME}/snapshots/{{snapshot}}"): {"description": "", **EXPIRY},
    ("POST", f"{_VOLUME}/snapshots/{{snapshot}}"): {"name": "hostile", "migration": False},
    ("POST", "/1.0/instances/{name}/snapshots"): {"name": "s", "stateful": False, **EXPIRY},
    ("PUT", _SNAPSHOT): EXPIRY,
    ("PATCH", _SNAPSHOT): EXPIRY,
    ("POST", _SNAPSHOT): {"name": "hostile", "migration": False},
    ("POST", "/1.0/instances/{name}/rebuild"): {"source": {"type": "image", "alias": "none"}},
    ("POST", "/1.0/instances/{name}/backups/{backup}"): {"name": "hostile"},
    ("POST", "/internal/recover/validate"): {"pools": [{"name": "hostile", "driver": "dir", **OBJECT}]},
    ("POST", "/internal/recover/import"): {"pools": [{"name": "hostile", "driver": "dir", **OBJECT}]},
    ("PUT", "/1.0/warnings/{name}"): {"status": "new"},
    ("PATCH", "/1.0/warnings/{name}"): {"status": "new"},
}
# Routes whose body is no JSON, or that are refused as a whole. They are attacked in their own ways.
WITHOUT_JSON: dict[tuple[str, str], dict[str, Any]] = {
    **{
        (method, f"{_BUCKETS}{rest}"): {}
        for rest in ("", "/{bucket}", "/{bucket}/keys", "/{bucket}/keys/{key}")
        for method in ("POST", "PUT", "PATCH")
    },
    **{
        (method, f"/1.0/networks/{{name}}/peers{rest}"): {}
        for rest in ("", "/{peer}")
        for method in ("POST", "PUT", "PATCH")
    },
    **{
        (method, f"/1.0/cluster/{kind}/{{name}}"): {}
        for kind in ("members", "groups")
        for method in ("POST", "PUT", "PATCH")
    },
    ("PUT", "/1.0/cluster"): {"server_name": "m1", "enabled": True},
    ("PUT", "/1.0/cluster/certificate"): {},
    ("POST", "/1.0/cluster/members"): {"server_name": "m2"},
    ("POST", "/internal/cluster/accept"): {
        "secret": "0" * 64,
        "name": "m2",
        "certificate_request": "-----BEGIN",
        "address": "192.0.2.1:9470",
    },
    ("POST", "/1.0/cluster/members/{name}/state"): {},
    ("POST", "/1.0/cluster/groups"): {},
    # It stops all instances, whatever it is sent.
    ("PUT", "/internal/shutdown"): {},
    ("POST", "/1.0/images"): {},
    ("POST", "/1.0/images/{name}/secret"): {},
    ("POST", "/1.0/instances/{name}/files"): {},
    ("POST", "/1.0/instances/{name}/metadata/templates"): {},
    ("PUT", "/1.0/instances/{name}/metadata/templates"): {},
    ("POST", "/1.0/instances/{name}/backups"): {},
    ("POST", "/1.0/images/{name}/refresh"): {},
    ("POST", "/1.0/storage-pools/{name}/volumes"): {},
    ("POST", "/1.0/storage-pools/{name}/volumes/{type}"): {},
}
WRONG: dict[type, list[str]] = {
    str: ["7", "true", "[]", "{}", "1e999", '"\\ud800"', '"a\\u0000b"'],
    bool: ["7", '"x"', "[]", "{}"],
    int: ['"x"', "true", "[]", "1.5", "1e30", "99999999999999999999", "-99999999999"],
    list: ["7", '"x"', "{}", "[7]", "[[]]", "[null]", '["\\ud800"]'],
    dict: ["7", '"x"', "[]", '{"a": 7}', '{"a": []}', '{"a": {"b": {"c": 1}}}', '{"\\ud800": "1"}'],
}
BAD_JSON = {
    "nothing": b"", "truncated": b'{"name": ', "no object": b"[]", "a number": b"7", "null": b"null",
    "NaN": b'{"name": NaN}', "infinite": b'{"name": Infinity}', "not UTF-8": b'{"name": "\xff\xfe"}',
    "deep lists": b"[" * 100_000, "deep objects": b'{"config":' * 50_000, "a NUL": b'{"na\0me": 1}',
    "control characters": b"\x01\x02\x03", "two documents": b"{}{}", "lone surrogate": b'{"name": "\\ud800"}',
}  # fmt: skip
BAD_NAMES = {
    "dots": "..", "encoded dots": "%2e%2e", "dots and slashes": "..%2F..%2Fetc", "slash": "a%2Fb",
    "NUL": "a%00b", "10,000 characters": LONG, "not UTF-8": "%ff%fe", "line break": "a%0ab", "dot": ".",
    "surrogate": "%ed%a0%80", "raw bytes": "\udcff\udcfe",
}  # fmt: skip
# Ugly, but some kinds of objects may be called so.
ODD_NAMES = {
    "quotes": "'%22%60", "a flag": "--help", "percent": "%25s%25n", "bad escape": "%zz", "spaces": "%20",
    "right to left": "%e2%80%ae", "tilde": "~root", "shell": "$(reboot)", "semicolon": "a;b",
}  # fmt: skip
BAD_TARGETS = [
    "/nosuch", "/1.0/nosuch", "/1.0/", "/1.0/instances/", "/1.0/instances/victim/", "/1.0/profiles//",
    "/1.0/instances/victim/nosuch", "/1.0/../etc/passwd", "//1.0", "/1.0//instances", "/2.0", "/1.0/%00",
    "/1.0/instances/victim/logs/a/b", "/%2e%2e/%2e%2e/etc", "/1.0/instances/victim%2Fstate", "/" + LONG,
    "/" + "a/" * 5000,
]  # fmt: skip
BAD_QUERIES = [
    "project=none", "project=..", "project=%00", f"project={LONG}", "project=%ff", "filter=%00", "filter=a",
    f"filter={LONG}", "filter=name+eq+(a%2B)%2B%24",
]  # fmt: skip
ODD_QUERIES = [
    "recursion=x", "recursion=-1", "recursion=99999999999999999999", "recursion=%00", "all-projects=maybe",
    "unknown=1", "unknown=%ff", "target=none", "path=%00", f"path=/{LONG}", "path=../../etc/passwd",
    "path=%ff", "type=nonsense", "secret=x", "secret=%ff", "timeout=x", "timeout=nan", "timeout=1e999",
    "timeout=-99999999999", "public=x", "instance-type=x",
]  # fmt: skip
_GZIPPED = b"\x1f\x8b\x08\x00"
_POST = b"POST /1.0/profiles HTTP/1.1\r\nHost: x\r\n"
NO_HTTP = [
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\0" * 4096,
    b"GET /1.0 HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n",
    b"GET /1.0 HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
    _POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    _POST + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
    b"GET /1.0 HTTP/1.1\r\nBad Header\r\n\r\n", b"GET /1.0 HTTP/1.1\r\nHost: a\0b\r\n\r\n",
    _POST + b"Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\n" + _GZIPPED,
    _POST + b"Content-Encoding: deflate\r\nContent-Length: 4\r\n\r\nabcd",
]  # fmt: skip
FILE_NUMBERS = ["-1", "x", "9" * 20, "1e3", "", " ", "0o600", "0x1ff", "\udcff", LONG, "07777777"]
FILE_PATHS = ["", "..", "/..", "a\0b", "/dev/../../x", "/" + LONG, "/root/" + "d/" * 2000, "\udcff", "/"]
_PART = b'--x\r\nContent-Disposition: form-data; name="%s"; filename="m"\r\n\r\n%s\r\n'
BAD_IMAGES = [
    b"", b"{", b"[]", b"{}", b'{"source": 7}', b'{"source": {"type": "nonsense"}}', b"\0" * 10_000,
    b"\x1f\x8b\x08\x00" + b"\0" * 100, b"hsqs" + b"\xff" * 500, b"\xfd7zXZ\0" + b"a" * 50, b"ustar" * 200,
    b"--x--\r\n", b"--x\r\n\r\n", _PART % (b"rootfs", b"x") + b"--x--\r\n", _PART % (b"metadata", b"x"),
    _PART % (b"nonsense", b"x") + b"--x--\r\n",
]  # fmt: skip
