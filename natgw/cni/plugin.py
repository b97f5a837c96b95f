"""One call of an engine, from the environment to the exit code. Each command is a function here."""

from __future__ import annotations

import json
import os
import sys

from natgw.cni import errors, results
from natgw.cni.call import NEWEST, VERSIONS, Call, decode
from natgw.cni.client import NoDaemon, ask
from natgw.cni.errors import CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, BinaryIO, TextIO

    Answer = dict[str, Any] | None

ATTACHMENTS = "/v1/cni/attachments"


def main(environment: Mapping[str, str] | None = None, stdin: BinaryIO | None = None, stdout: TextIO | None = None) -> int:
    """Do what CNI_COMMAND says and print the result or the error as JSON; gives the exit code."""
    version, environment = NEWEST, os.environ if environment is None else environment
    try:
        config = _read(stdin or sys.stdin.buffer, optional=environment.get("CNI_COMMAND") == "VERSION")
        version = str(config.get("cniVersion") or NEWEST)
        answer = run(environment, config)
        status = 0
    except CniError as error:
        answer, status = error.record(version), 1
    except Exception as error:  # an engine reads JSON, not a traceback
        answer, status = CniError(errors.INTERNAL, f"internal error: {type(error).__name__}: {error}").record(version), 1
    if answer is not None:
        print(json.dumps(answer), file=stdout or sys.stdout, flush=True)
    return status


def run(environment: Mapping[str, str], config: dict[str, Any]) -> Answer:
    """What a command answers; None is nothing to print. Raises CniError."""
    command = environment.get("CNI_COMMAND", "")
    if command == "VERSION":
        return {"cniVersion": config.get("cniVersion") or NEWEST, "supportedVersions": list(VERSIONS)}
    if command not in COMMANDS:
        said = f"CNI_COMMAND={command!r}" if command else "CNI_COMMAND is not set"
        raise CniError(errors.INVALID_ENVIRONMENT, f"invalid environment variables: {said}",
                       f"it must be one of {', '.join([*COMMANDS, 'VERSION'])}")
    return COMMANDS[command](Call(environment, config))


def add(call: Call) -> Answer:
    """Give the container an interface on the network, which is made if it is not there yet."""
    attachment = ask(call.socket, "POST", ATTACHMENTS, call.request())
    return results.added(call.version, attachment, call.dns, call.previous)


def delete(call: Call) -> Answer:
    """Take it away again. What is not there any more is no error."""
    try:
        ask(call.socket, "DELETE", ATTACHMENTS, call.key())
    except NoDaemon:
        # Without a daemon nobody can take the interface away; a namespace that is gone has taken it along, and the daemon
        # forgets the attachment when it is started again.
        if call.netns and os.path.exists(call.netns):
            raise
    return None


def check(call: Call) -> Answer:
    """Whether the container still has what ADD gave it."""
    if call.previous is None:
        raise CniError(errors.INVALID_CONFIG, "CHECK needs prevResult, the result of ADD")
    try:
        attachment = ask(call.socket, "POST", "/v1/cni/check", call.key())
    except CniError as error:
        if error.code == errors.NOT_FOUND:
            raise CniError(errors.UNKNOWN_CONTAINER, str(error)) from None
        raise
    results.check(call.previous, call.ifname, attachment)
    return None


def collect(call: Call) -> Answer:
    """Take away every attachment to the network that the engine does not know."""
    ask(call.socket, "POST", "/v1/cni/gc", {"network": call.network, "valid": call.valid_attachments()})
    return None


def status(call: Call) -> Answer:
    """Whether ADD would be served."""
    try:
        ask(call.socket, "GET", "/v1/status")
    except CniError as error:
        raise CniError(errors.NOT_AVAILABLE, str(error)) from None
    return None


COMMANDS: dict[str, Callable[[Call], Answer]] = {"ADD": add, "DEL": delete, "CHECK": check, "GC": collect, "STATUS": status}


def _read(stdin: BinaryIO, *, optional: bool) -> dict[str, Any]:
    try:
        content = stdin.read()
    except OSError as error:
        raise CniError(errors.IO_FAILURE, f"cannot read the network configuration: {error.strerror}") from None
    return {} if optional and not content.strip() else decode(content)
