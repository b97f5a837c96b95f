"""Errors meant for the person at the keyboard: one line that says what to do. Any layer may raise them.

They are raised while natgw is configured or controlled, never for a frame: whatever comes over a wire is
counted and dropped instead.
"""


class NatgwError(Exception):
    """A request that cannot be met; `str(error)` is the whole message that the user sees."""

    status: int = 400
    """HTTP status with which the control API answers."""


class NotFound(NatgwError):
    """The network, container, interface or namespace that was named does not exist."""

    status = 404


class Conflict(NatgwError):
    """What was asked for is taken: a name, an address, a port, or the socket of another daemon."""

    status = 409
