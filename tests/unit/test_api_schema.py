"""Request bodies: what is wrong is named, and what was probably meant."""

from __future__ import annotations

import json
from typing import Any

import pytest

from natgw.api import schema
from natgw.errors import NatgwError


def test_defaults_are_filled_in() -> None:
    body = schema.parse('{"command": ["true"]}', schema.RUN)
    assert body == {"name": None, "command": ["true"], "publish": [], "network": None, "aliases": [], "link": None,
                    "ip": None, "ip6": None, "mac": None, "mtu": None,
                    "offload": True, "dhcp": False, "detach": False, "env": {}, "workdir": None}


def test_defaults_are_not_shared() -> None:
    schema.parse('{"command": ["true"]}', schema.RUN)["env"]["leaked"] = "yes"
    assert schema.parse('{"command": ["true"]}', schema.RUN)["env"] == {}


@pytest.mark.parametrize("content", ["", "  \n", "{}"])
def test_nothing_is_an_empty_object(content: str) -> None:
    assert schema.parse(content, schema.STOP) == {"timeout_s": 10}


@pytest.mark.parametrize(
    ("fields", "content", "message"),
    [
        (schema.RUN, '{"command": ["a"], "pubilsh": ["80"]}', 'unknown key "pubilsh": did you mean "publish"?'),
        (schema.PUBLISH, '{"xyz": 1}', 'unknown key "xyz"; known keys: publish'),
        (schema.NOTHING, '{"xyz": 1}', 'unknown key "xyz"; known keys: none'),
        (schema.RUN, "{}", 'missing key "command": a list of at least one string'),
        (schema.RUN, '{"command": []}', '"command" must be a list of at least one string, not []'),
        (schema.RUN, '{"command": "ls"}', '"command" must be a list of at least one string, not "ls"'),
        (schema.RUN, '{"command": ["a"], "mtu": true}', '"mtu" must be an integer, not true'),
        (schema.RUN, '{"command": ["a"], "mtu": 1500.5}', '"mtu" must be an integer, not 1500.5'),
        (schema.RUN, '{"command": ["a"], "offload": null}', '"offload" must be true or false, not null'),
        (schema.RUN, '{"command": ["a"], "detach": 1}', '"detach" must be true or false, not 1'),
        (schema.RUN, '{"command": ["a"], "env": {"A": 1}}', '"env" must be an object of strings, not {"A": 1}'),
        (schema.RUN, '{"command": ["a"], "publish": [80]}', '"publish" must be a list of strings, not [80]'),
        (schema.ATTACH, '{"target": 1234}', '"target" must be a string, not 1234'),
        (schema.ATTACH, '{"target": "a", "ifname": null}', '"ifname" must be a string, not null'),
        (schema.STARTED, '{"pid": "1"}', '"pid" must be a process id, not "1"'),
        (schema.STOP, '{"timeout_s": -1}', '"timeout_s" must be a number of seconds, 0 or more, not -1'),
        (schema.STOP, '{"timeout_s": true}', '"timeout_s" must be a number of seconds, 0 or more, not true'),
        (schema.STOP, '{"timeout_s": Infinity}', "the request body is not JSON: Infinity is not a JSON number"),
        (schema.STOP, "[]", "the request body must be a JSON object"),
    ],
)
def test_what_is_wrong_is_named(fields: schema.Fields, content: str, message: str) -> None:
    with pytest.raises(NatgwError) as caught:
        schema.parse(content, fields)
    assert (str(caught.value), caught.value.status) == (message, 400)


def test_no_json_is_told_with_its_place() -> None:
    with pytest.raises(NatgwError, match=r"^the request body is not JSON: .*line 1 column 2"):
        schema.parse("{nonsense", schema.RUN)


@pytest.mark.parametrize("value", [None, "x", 0, 1.5, True, [], ["a"], [1], {}, {"a": "b"}, {"a": 1}])
@pytest.mark.parametrize("fields", [schema.RUN, schema.ATTACH, schema.STARTED, schema.STOP, schema.PUBLISH])
def test_any_value_of_any_key_is_taken_as_it_is_or_refused(fields: schema.Fields, value: Any) -> None:
    needed = {key: {"a list of at least one string": ["x"], "a process id": 1}.get(field.kind, "x")
              for key, field in fields.items() if field.required}
    for key in fields:
        try:
            body = schema.parse(json.dumps(needed | {key: value}), fields)
        except NatgwError as error:
            assert f'"{key}" must be ' in str(error)  # noqa: PT017 - accepted values raise nothing
        else:
            assert body[key] == value
