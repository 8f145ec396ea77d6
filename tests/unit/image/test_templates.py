"""Templates of images: what LXD's engine makes of them, and what strangers may not make of us."""

from __future__ import annotations

import pytest

from core.errors import Invalid
from services.image.templates.engine import render
from services.image.templates.runner import Job, TemplateRunner
from services.image.templates.scope import Budget
from services.image.templates.values import TemplateError

CONTEXT = {
    "trigger": "create",
    "path": "/etc/hostname",
    "container": {"name": "web", "privileged": "false"},
    "instance": {"name": "web", "privileged": "false"},
    "config": {"user.foo": "bar\n", "user.network-config": "version: 1\n"},
    "devices": {"eth0": {"type": "nic"}, "root": {"path": "/", "type": "disk"}},
    "properties": {"default": "dd"},
}


def made(source: str) -> str:
    return render(source, CONTEXT, Budget())


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ container.name }}\n", "web\n"),
        ("127.0.1.1\t{{ instance.name }}\n", "127.0.1.1\tweb\n"),
        ('{{ config_get("user.foo", "x") }}', "bar"),
        ('{{ config_get("user.nope", properties.default) }}', "dd"),
        ('{% if config_get("user.network-config", "") == "" %}no{% else %}yes{% endif %}', "yes"),
        ('{% if trigger == "copy" %}a{% elif trigger == "create" %}b{% endif %}', "b"),
        ("{% for k, v in properties %}{{ k }}={{ v }};{% endfor %}", "default=dd;"),
        ("{% for n, d in devices %}{{ n }}:{{ d.type }} {% endfor %}", "eth0:nic root:disk "),
        ('{% for c in "ab" %}{{ forloop.Counter }}{% if not forloop.Last %},{% endif %}{% endfor %}', "1,2"),
        ("{% for x in nope %}a{% empty %}none{% endfor %}", "none"),
        ("{{ nope }}|{{ nope.deeper }}|{{ nope|default:\"d\" }}", "||d"),
        ("{{ 1+2 }} {{ 7/2 }} {{ 7%3 }} {{ 2*3.5 }} {{ 2^3 }} {{ -5 }}", "3 3 1 7.000000 8.000000 -5"),
        ("{{ true }} {{ !true }} {{ not false }} {{ 1 <> 2 }}", "True False True True"),
        ('{{ "user.foo" in config }} {{ "b" in "abc" }}', "True True"),
        ('{{ "a,b"|split:","|join:"-" }} {{ "abc"|upper|first }} {{ "hello you"|title }}', "a-b A Hello You"),
        ("a\n{%- if true -%}\n b {%- endif -%}\n c", "abc"),
        ("{# no #}x{% comment %} {{ bad }} {% endcomment %}y", "xy"),
        ('{% set a = "v" %}{{ a }}{% with b="w" %}{{ b }}{% endwith %}{{ b }}', "vw"),
        ("{% ifequal 1 1 %}eq{% else %}ne{% endifequal %}", "eq"),
        ("{% verbatim %}{{ raw }}{% endverbatim %}", "{{ raw }}"),
        ('{{ "a&b<" }} {% autoescape on %}{{ "<" }}{% endautoescape %}', "a&b< &lt;"),
        ('{{ "say \\"hi\\"" }}', 'say "hi"'),
        ("{% filter upper %}ab{% endfilter %}", "AB"),
    ],
)  # fmt: skip
def test_it_reads_as_lxd_reads_it(source: str, text: str) -> None:
    """What published images hold, and the corners of pongo2 around that."""
    assert made(source) == text


@pytest.mark.parametrize(
    "source",
    [
        '{% include "/etc/shadow" %}',
        '{% import "/etc/shadow" x %}',
        '{% ssi "/etc/shadow" %}',
        '{% extends "/etc/shadow" %}',
        '{% exec "id" %}',
        "{% macro m(x) %}{{ x }}{% endmacro %}",
        "{{ config_get.__globals__ }}",
        "{{ config_get.__class__.__mro__ }}",
        '{{ "".__class__.__mro__.1.__subclasses__() }}',
        "{{ config_get.__init__.__globals__.os.popen(\"id\").read() }}",
        '{{ "x"|attr:"__class__" }}',
        "{{ container.name.__class__ }}",
        '{{ config["user.foo"] }}',
        "{{ lipsum.__globals__ }}{{ nope() }}",
        '{{ "%s"|format:"x" }}',
        "{{ 1/0 }}",
        "{{ unclosed",
        "{% if true %}",
        "{{ \"\\x\" }}",
        '{{ config_get("a") }}',
    ],
)  # fmt: skip
def test_there_is_nothing_to_climb_through(source: str) -> None:
    """No files, no objects, no calls but one (CVE-2026-33897); each refusal names the line."""
    with pytest.raises(TemplateError):
        made(source)


@pytest.mark.parametrize(
    "source",
    [
        '{{ "a"|ljust:100000000000 }}',
        '{% for x in "' + "a" * 50 + '" %}{% set b = b|add:b|add:"x" %}{% endfor %}{{ b }}',
        ('{% for x in "' + "a" * 50 + '" %}') * 5 + "x" + "{% endfor %}" * 5,
        "{% if 1 %}" * 5000,
        "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
        "{{ " + "!" * 5000 + "1 }}",
        "{{ 1" + " == 1" * 5000 + " }}",
        "{{ 1" + "^9" * 100_000 + " }}",
        '{% for x in "' + "a" * 2000 + '" %}' + "y" * 2000 + "{% endfor %}",
    ],
)
def test_a_bomb_ends_at_its_bounds(source: str) -> None:
    """Steps, bytes and depth are counted, so that it costs a second at most."""
    with pytest.raises(TemplateError):
        made(source)


async def test_it_is_rendered_in_a_process_of_its_own() -> None:
    """Texts come back in order, whatever letters they are made of; what is wrong names its template."""
    jobs = [
        Job("/a", "a.tpl", "{{ path }} ä".encode(), "start"),
        Job("/b", "b.tpl", b"{{ trigger }}", "copy"),
    ]
    runner = TemplateRunner()

    assert await runner.render({}, jobs) == ["/a ä".encode(), b"copy"]
    with pytest.raises(Invalid, match=r"'b\.tpl' cannot be rendered: line 2: Tag 'bad'"):
        await runner.render({}, [jobs[0], Job("/b", "b.tpl", b"\n{% bad %}", "copy")])
    with pytest.raises(Invalid, match="not UTF-8"):
        await runner.render({}, [Job("/b", "b.tpl", b"\xff", "copy")])
