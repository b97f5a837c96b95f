"""What natgw reads of TCP beyond ports and flags (RFC 9293 section 3.1): the window scale a SYN asks for."""

from __future__ import annotations

TCP_BYTES = 20
_END, _NOTHING, _WINDOW_SCALE = 0, 1, 3
MAX_WINDOW_SCALE = 14
"""A larger one means this (RFC 7323 section 2.3)."""


def window_scale(header: bytes | bytearray) -> int | None:
    """The shift count among the options of a TCP header; None if it does not offer one."""
    at = TCP_BYTES
    while at + 1 < len(header) and header[at] != _END:
        if header[at] == _NOTHING:
            at += 1
            continue
        length = header[at + 1]
        if header[at] == _WINDOW_SCALE and length == 3 and at + 2 < len(header):
            return min(header[at + 2], MAX_WINDOW_SCALE)
        at += max(2, length)
    return None
