"""An assembler for the few eBPF instructions the guard needs, and bpf(2) to load what it gives. No compiler, no library.

Instruction encoding as in RFC 9669 section 3: opcode, registers (source in the high nibble), offset, immediate; 8 bytes.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Sequence

from natgw.errors import NatgwError

_SYSCALL_NUMBERS = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "armv7l": 386, "ppc64le": 361, "s390x": 351}
_MAP_CREATE, _MAP_UPDATE, _MAP_DELETE, _PROG_LOAD = 0, 2, 3, 5
_MAP_TYPE_HASH = 1
_PROG_TYPE_SCHED_CLS = 3
_PSEUDO_MAP_FD = 1

R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, R10 = range(11)
B, H, W = 0x10, 0x08, 0x00
MAP_LOOKUP_ELEM = 1
_JUMPS = {"==": 0x15, ">": 0x25, ">=": 0x35, "&": 0x45, "!=": 0x55, "<": 0xA5, "<=": 0xB5}

_libc = ctypes.CDLL(None, use_errno=True)


class Assembler:
    """Instructions in order; `label` names the place of the next one, and jumps take names."""

    def __init__(self) -> None:
        self._code: list[bytes | tuple[int, int, int, str]] = []
        self._labels: dict[str, int] = {}

    def label(self, name: str) -> None:
        self._labels[name] = len(self._code)

    def emit(self, opcode: int, dst: int = 0, src: int = 0, offset: int = 0, immediate: int = 0) -> None:
        self._code.append(struct.pack("<BBhi", opcode, src << 4 | dst, offset, _signed(immediate)))

    def set(self, dst: int, value: int) -> None:
        self.emit(0xB7, dst, immediate=value)

    def copy(self, dst: int, src: int) -> None:
        self.emit(0xBF, dst, src)

    def add(self, dst: int, value: int) -> None:
        self.emit(0x07, dst, immediate=value)

    def add_register(self, dst: int, src: int) -> None:
        self.emit(0x0F, dst, src)

    def mask(self, dst: int, value: int) -> None:
        self.emit(0x57, dst, immediate=value)

    def shift_left(self, dst: int, bits: int) -> None:
        self.emit(0x67, dst, immediate=bits)

    def load_packet(self, size: int, offset: int) -> None:
        """R0 = the packet's bytes at `offset` in host order; the program ends with 0 when they are not there. Wants R6."""
        self.emit(0x20 | size, immediate=offset)

    def load_packet_at(self, size: int, src: int, offset: int) -> None:
        """The same at `src` + `offset`."""
        self.emit(0x40 | size, src=src, immediate=offset)

    def store(self, size: int, offset: int, src: int) -> None:
        """Write to the stack, at R10 + `offset`."""
        self.emit(0x63 | size, R10, src, offset)

    def map(self, dst: int, fd: int) -> None:
        self.emit(0x18, dst, _PSEUDO_MAP_FD, immediate=fd)
        self.emit(0)

    def call(self, helper: int) -> None:
        self.emit(0x85, immediate=helper)

    def jump(self, dst: int, condition: str, value: int, label: str) -> None:
        """Go to a label if `dst` compares so with a constant (unsigned)."""
        self._code.append((_JUMPS[condition], dst, value, label))

    def end(self, value: int) -> None:
        self.set(R0, value)
        self.emit(0x95)

    def program(self) -> bytes:
        """The instructions, jumps resolved. Raises KeyError for a label that is not there."""
        out = []
        for place, item in enumerate(self._code):
            if isinstance(item, tuple):
                opcode, dst, value, label = item
                item = struct.pack("<BBhi", opcode, dst, self._labels[label] - place - 1, _signed(value))
            out.append(item)
        return b"".join(out)


def _signed(value: int) -> int:
    return value - (1 << 32) if value >= 1 << 31 else value


class BpfHash:
    """A hash map in the kernel; keys and values are bytes of the given sizes."""

    def __init__(self, key_bytes: int, value_bytes: int, max_entries: int) -> None:
        attributes = struct.pack("<IIII", _MAP_TYPE_HASH, key_bytes, value_bytes, max_entries)
        try:
            self.fd = _bpf(_MAP_CREATE, attributes, "make a map")
        except OSError as error:
            raise NatgwError(f"cannot make a map for the guard: {error.strerror}") from None

    def set(self, key: bytes, value: bytes) -> None:
        key_buffer, value_buffer = ctypes.create_string_buffer(key, len(key)), ctypes.create_string_buffer(value, len(value))
        attributes = struct.pack("<IxxxxQQQ", self.fd, ctypes.addressof(key_buffer), ctypes.addressof(value_buffer), 0)
        try:
            _bpf(_MAP_UPDATE, attributes, "write a map")
        except OSError as error:
            raise NatgwError(f"the guard's map takes no more entries: {error.strerror}") from None

    def delete(self, key: bytes) -> None:
        """A key that is not there is no error."""
        key_buffer = ctypes.create_string_buffer(key, len(key))
        try:
            _bpf(_MAP_DELETE, struct.pack("<IxxxxQQQ", self.fd, ctypes.addressof(key_buffer), 0, 0), "write a map")
        except FileNotFoundError:
            pass

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def load_classifier(program: bytes, name: str) -> int:
    """Load a program for tc; gives its descriptor. Raises NatgwError if the kernel will not have it."""
    instructions = ctypes.create_string_buffer(program, len(program))
    licence = ctypes.create_string_buffer(b"MIT")
    log = ctypes.create_string_buffer(65536)
    attributes = struct.pack(
        "<IIQQIIQII16s", _PROG_TYPE_SCHED_CLS, len(program) // 8, ctypes.addressof(instructions), ctypes.addressof(licence),
        1, len(log), ctypes.addressof(log), 0, 0, name.encode())
    try:
        return _bpf(_PROG_LOAD, attributes, "load a program")
    except OSError as error:
        verdict = log.value.decode(errors="replace").strip().splitlines()
        detail = verdict[-1] if verdict else os.strerror(error.errno or 0)
        raise NatgwError(f"the kernel refused the guard's eBPF program: {detail}") from None


def _bpf(command: int, attributes: bytes, what: str) -> int:
    number = _SYSCALL_NUMBERS.get(os.uname().machine)
    if number is None:
        supported: Sequence[str] = sorted(_SYSCALL_NUMBERS)
        raise NatgwError(f"bpf(2) has no known number on {os.uname().machine} (known: {', '.join(supported)}); "
                         "use --exclusive-uplink in a namespace where nothing else runs")
    buffer = ctypes.create_string_buffer(attributes.ljust(128, b"\0"), 128)
    result = int(_libc.syscall(number, command, buffer, len(attributes)))
    if result < 0:
        code = ctypes.get_errno()
        if code in (1, 13):
            raise NatgwError(f"not allowed to {what} for the guard: bpf(2) needs root (CAP_BPF and CAP_NET_ADMIN)")
        raise OSError(code, os.strerror(code))
    return result
