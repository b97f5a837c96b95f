"""What a request body may hold: every key named, with its type; anything else is refused with a message that helps.

A mistyped key that is silently ignored looks like a setting that does not work, so unknown keys are errors here and
name the key that was probably meant.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from natgw.errors import NatgwError


@dataclass(frozen=True)
class Field:
    """One key: `accepts` judges its value, `kind` is the word for it in the error message."""

    kind: str
    accepts: Callable[[object], bool]
    default: Callable[[], Any] = lambda: None
    required: bool = False


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_duration(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _is_text_map(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(item, str) for item in value.values())


def _or_null(accepts: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: value is None or accepts(value)


TEXT = Field("a string", _or_null(_is_text))
INTEGER = Field("an integer", _or_null(_is_integer))
FLAG = Field("true or false", lambda value: isinstance(value, bool), default=bool)
FLAG_ON = replace(FLAG, default=lambda: True)
TEXTS = Field("a list of strings", _is_texts, default=list)
TEXT_OR_TEXTS = Field("a string or a list of strings", lambda value: value is None or _is_text(value) or _is_texts(value))
TEXT_MAP = Field("an object of strings", _is_text_map, default=dict)
NEEDED_TEXT = Field("a string", _is_text, required=True)
NEEDED_TEXTS = Field("a list of at least one string", lambda value: _is_texts(value) and bool(value), required=True)

Fields = Mapping[str, Field]

_LINK = {"publish": TEXTS, "network": TEXT, "aliases": TEXTS, "link": TEXT, "ip": TEXT, "ip6": TEXT, "mac": TEXT,
         "mtu": INTEGER, "offload": FLAG_ON, "dhcp": FLAG}

RUN: Fields = {"name": TEXT, "command": NEEDED_TEXTS, **_LINK, "detach": FLAG, "env": TEXT_MAP,
                            "workdir": TEXT}
ATTACH: Fields = {"target": NEEDED_TEXT, "name": TEXT, **_LINK,
                               "ifname": Field("a string", _is_text, default=lambda: "eth0")}
STARTED: Fields = {"pid": Field("a process id", _is_integer, required=True)}
STOP: Fields = {"timeout_s": Field("a number of seconds, 0 or more", _is_duration, default=lambda: 10)}
PUBLISH: Fields = {"publish": NEEDED_TEXTS}
NETWORK: Fields = {"name": NEEDED_TEXT, "driver": TEXT, "subnet": TEXT_OR_TEXTS, "ip_range": TEXT_OR_TEXTS,
                   "gateway": TEXT_OR_TEXTS, "aux": TEXT_MAP,
                   "internal": FLAG, "attachable": FLAG, "ipv6": FLAG, "options": TEXT_MAP, "labels": TEXT_MAP}
CONNECT: Fields = {"container": NEEDED_TEXT, "ip": TEXT, "ip6": TEXT, "mac": TEXT, "aliases": TEXTS}
DISCONNECT: Fields = {"container": NEEDED_TEXT}
SHUTDOWN: Fields = {"keep": FLAG}
NOTHING: Fields = {}


def parse(content: str | bytes, fields: Fields) -> dict[str, Any]:
    """The values of a JSON body, defaults filled in. Raises NatgwError (400) naming what is wrong."""
    body = parse_object(content)
    for key in body:
        if key not in fields:
            raise NatgwError(unknown_key(key, fields))
    return {key: _value(key, field, body) for key, field in fields.items()}


def parse_object(content: str | bytes) -> dict[str, Any]:
    """A JSON body with keys that somebody else checks. Raises NatgwError (400)."""
    try:
        body = json.loads(content, parse_constant=_refuse) if content.strip() else {}
    except ValueError as error:
        raise NatgwError(f"the request body is not JSON: {error}") from None
    if not isinstance(body, dict):
        raise NatgwError("the request body must be a JSON object")
    return body


def _value(key: str, field: Field, body: dict[str, Any]) -> Any:
    if key not in body:
        if field.required:
            raise NatgwError(f'missing key "{key}": {field.kind}')
        return field.default()
    if not field.accepts(body[key]):
        raise NatgwError(f'"{key}" must be {field.kind}, not {json.dumps(body[key])}')
    return body[key]


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not a JSON number")


def unknown_key(key: str, fields: Iterable[str]) -> str:
    """What to say about a key that does not exist: the one that was probably meant, or all there are."""
    near = difflib.get_close_matches(key, fields, n=1)
    if near:
        return f'unknown key "{key}": did you mean "{near[0]}"?'
    known = ", ".join(fields) or "none"
    return f'unknown key "{key}"; known keys: {known}'
