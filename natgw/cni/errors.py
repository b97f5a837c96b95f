"""Errors as CNI has them: a number that engines act on, and a line for people.

Numbers below 100 are the specification's ("Error"); those from 100 on are natgw's own.
"""

from __future__ import annotations

INCOMPATIBLE_VERSION = 1
UNSUPPORTED_FIELD = 2
UNKNOWN_CONTAINER = 3
INVALID_ENVIRONMENT = 4
IO_FAILURE = 5
CANNOT_DECODE = 6
INVALID_CONFIG = 7
TRY_AGAIN = 11
NOT_AVAILABLE = 50

REFUSED = 100
"""The daemon cannot do what was asked; its message says why."""
TAKEN = 101
"""An address, a host port, or the attachment itself is there already."""
NOT_FOUND = 102
"""A namespace or a network that was named does not exist."""
NOT_AS_ADDED = 103
"""CHECK: something is not as ADD left it."""
INTERNAL = 104
"""A mistake in natgw."""


class CniError(Exception):
    """What the plugin ends with: `code`, `str(error)` as the message, and `details` if there is more to say."""

    def __init__(self, code: int, message: str, details: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.details = details

    def record(self, version: str) -> dict[str, object]:
        """As it is printed on standard output."""
        record: dict[str, object] = {"cniVersion": version, "code": self.code, "msg": str(self)}
        return record | {"details": self.details} if self.details else record
