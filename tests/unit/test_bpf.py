"""The eBPF assembler against RFC 9669, and the guard's program against a small interpreter of what it uses."""

from __future__ import annotations

import operator
import struct
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address

import pytest

from natgw.host import bpf, guard
from natgw.host.bpf import R0, R1, R2, R6, R7, R10, Assembler, B, H, W

OK, SHOT = 0, 2
MAP_FD = 77
MAP6_FD = 78
RANGE = (40000, 50000)
OURS, OTHER = IPv4Address("198.51.100.2"), IPv4Address("198.51.100.3")


def assembled(*steps: tuple[object, ...]) -> str:
    asm = Assembler()
    for name, *arguments in steps:
        getattr(asm, str(name))(*arguments)
    return asm.program().hex(" ", 8)


@pytest.mark.parametrize(("step", "expected"), [
    (("set", R0, 2), "b700000002000000"),
    (("set", R1, 0xFFFFFFFF), "b7010000ffffffff"),
    (("copy", R6, R1), "bf16000000000000"),
    (("add", R2, -8), "07020000f8ffffff"),
    (("add_register", R7, R1), "0f17000000000000"),
    (("mask", R0, 0x1FFF), "57000000ff1f0000"),
    (("shift_left", R0, 2), "6700000002000000"),
    (("load_packet", H, 12), "280000000c000000"),
    (("load_packet", B, 23), "3000000017000000"),
    (("load_packet", W, 30), "200000001e000000"),
    (("load_packet_at", H, R7, 16), "4870000010000000"),
    (("store", W, -8, R0), "630af8ff00000000"),
    (("map", R1, 5), "1811000005000000 0000000000000000"),
    (("call", 1), "8500000001000000"),
    (("end", 0), "b700000000000000 9500000000000000"),
])
def test_encoding(step: tuple[object, ...], expected: str) -> None:
    assert assembled(step) == expected


def test_jumps_count_from_the_next_instruction_and_a_map_load_is_two() -> None:
    program = assembled(("jump", R0, "==", 1, "out"), ("map", R1, 5), ("label", "out"), ("end", 0))
    assert program.startswith("1500020001000000 ")


def test_a_label_that_is_not_there() -> None:
    with pytest.raises(KeyError, match="nowhere"):
        assembled(("jump", R0, "==", 1, "nowhere"))


class Absent(Exception):
    """A load beyond the packet: the kernel ends the program with 0."""


ARITHMETIC: dict[int, Callable[[int, int, int], int]] = {  # of destination, source, immediate
    0xB7: lambda dst, src, number: number,
    0xBF: lambda dst, src, number: src,
    0x07: lambda dst, src, number: dst + number,
    0x0F: lambda dst, src, number: dst + src,
    0x57: lambda dst, src, number: dst & number,
    0x67: lambda dst, src, number: dst << number,
}
JUMPS: dict[int, Callable[[int, int], bool]] = {0x15: operator.eq, 0x55: operator.ne, 0x25: operator.gt, 0xA5: operator.lt,
                                                0x35: operator.ge}
SIZES = {B: 1, H: 2, W: 4}
LOAD, LOAD_AT, STORE, MAP, CALL, EXIT = 0x20, 0x40, 0x63, 0x18, 0x85, 0x95


class Machine:
    """RFC 9669 for the instructions that the guard uses."""

    def __init__(self, program: bytes, packet: bytes, entries: set[bytes]) -> None:
        self.code = [struct.unpack_from("<BBhi", program, at) for at in range(0, len(program), 8)]
        self.packet, self.entries = packet, entries
        self.registers, self.stack, self.place = [0] * 11, bytearray(512), 0

    def run(self) -> int:
        try:
            while self.code[self.place][0] != EXIT:
                self.step()
        except Absent:
            return 0
        return self.registers[R0]

    def step(self) -> None:
        opcode, pair, offset, number = self.code[self.place]
        self.place += 1
        registers, dst, src = self.registers, pair & 15, pair >> 4
        if opcode in ARITHMETIC:
            registers[dst] = ARITHMETIC[opcode](registers[dst], registers[src], number)
        elif opcode in JUMPS:
            self.place += offset if JUMPS[opcode](registers[dst], number) else 0
        elif opcode & ~0x18 == LOAD:
            registers[R0] = self.load(SIZES[opcode & 0x18], number)
        elif opcode & ~0x18 == LOAD_AT:
            registers[R0] = self.load(SIZES[opcode & 0x18], registers[src] + number)
        elif opcode == STORE and dst == R10:
            self.stack[512 + offset : 516 + offset] = (registers[src] & 0xFFFFFFFF).to_bytes(4, "little")
        elif opcode == MAP and src == 1 and number in (MAP_FD, MAP6_FD):
            self.place += 1
        elif opcode == CALL and number == bpf.MAP_LOOKUP_ELEM:
            key = bytes(self.stack[512 + registers[R2] :][: -registers[R2]])
            registers[R0] = int(key in self.entries)
        else:
            pytest.fail(f"an instruction this interpreter does not know: {opcode:#x}")

    def load(self, size: int, at: int) -> int:
        if at + size > len(self.packet):
            raise Absent
        return int.from_bytes(self.packet[at : at + size], "big")


def packet(to: IPv4Address, protocol: int, port: int, *, options: bytes = b"", fragment: int = 0) -> bytes:
    header = struct.pack("!BBHHHBBH4s4s", 0x45 + len(options) // 4, 0, 40, 0, fragment, 64, protocol, 0, bytes(4), to.packed)
    return bytes(12) + b"\x08\x00" + header + options + struct.pack("!HH", 1234, port) + bytes(16)


def little_endian_key(address: IPv4Address, protocol: int, port: int) -> bytes:
    return struct.pack("<II", int(address), protocol << 16 | port)


ENTRIES = {little_endian_key(OURS, 0, 0), little_endian_key(OURS, 6, 8080), little_endian_key(OTHER, 17, 53)}


@pytest.mark.parametrize(("frame", "verdict"), [
    (packet(OURS, 6, 40000), SHOT),
    (packet(OURS, 17, 50000), SHOT),
    (packet(OURS, 6, 39999), OK),
    (packet(OURS, 6, 50001), OK),
    (packet(OTHER, 6, 45000), OK),
    (packet(OURS, 6, 8080), SHOT),
    (packet(OURS, 17, 8080), OK),
    (packet(OTHER, 17, 53), SHOT),
    (packet(OURS, 1, 45000), OK),
    (packet(OURS, 6, 45000, options=bytes(8)), SHOT),
    (packet(OURS, 6, 22, options=bytes(40)), OK),
    (packet(OURS, 17, 45000, fragment=0x2000), SHOT),
    (packet(OURS, 17, 45000, fragment=0x0001), OK),
    (bytes(12) + b"\x08\x06" + bytes(28), OK),
    (bytes(12) + b"\x86\xdd" + bytes(40), OK),
    (packet(OURS, 6, 45000)[:30], OK),
    (bytes(10), OK),
])
def test_what_the_guard_drops(frame: bytes, verdict: int) -> None:
    assert Machine(guard.assemble(MAP_FD, RANGE, exclusive=False), frame, ENTRIES).run() == verdict


@pytest.mark.parametrize(("ethertype", "verdict"), [(0x0800, SHOT), (0x0806, SHOT), (0x86DD, OK)])
def test_what_the_guard_drops_when_natgw_is_alone(ethertype: int, verdict: int) -> None:
    frame = bytes(12) + struct.pack("!H", ethertype) + bytes(40)
    assert Machine(guard.assemble(MAP_FD, RANGE, exclusive=True), frame, set()).run() == verdict


OURS6, OTHER6 = IPv6Address("2001:db8:51::2"), IPv6Address("2001:db8:51::3")
HOP_BY_HOP, ROUTING, FRAGMENT, DESTINATION_OPTIONS = 0, 43, 44, 60


def packet6(to: IPv6Address, protocol: int, port: int, *headers: tuple[int, bytes]) -> bytes:
    """`headers` are extension headers, each its number and what follows its first byte."""
    numbers = [*(number for number, _ in headers), protocol]
    chain = b"".join(bytes((following,)) + rest for following, (_, rest) in zip(numbers[1:], headers, strict=True))
    body = chain + struct.pack("!HH", 1234, port) + bytes(16)
    return bytes(12) + b"\x86\xdd" + struct.pack("!IHBB16s16s", 6 << 28, len(body), numbers[0], 64, bytes(16), to.packed) + body


def key6(address: IPv6Address, protocol: int, port: int) -> bytes:
    words = struct.unpack("!IIII", address.packed)
    return struct.pack("<IIIII", *words, protocol << 16 | port)


ENTRIES6 = {key6(OURS6, 0, 0), key6(OURS6, 6, 8080), key6(OTHER6, 17, 53)}
OPTIONS, LONG_OPTIONS = bytes((0,)) + bytes(6), bytes((2,)) + bytes(22)


@pytest.mark.parametrize(("frame", "verdict"), [
    (packet6(OURS6, 6, 40000), SHOT),
    (packet6(OURS6, 17, 50000), SHOT),
    (packet6(OURS6, 6, 39999), OK),
    (packet6(OURS6, 6, 50001), OK),
    (packet6(OTHER6, 6, 45000), OK),
    (packet6(OURS6, 6, 8080), SHOT),
    (packet6(OTHER6, 17, 53), SHOT),
    (packet6(OURS6, 58, 45000), OK),
    (packet6(OURS6, 6, 45000, (HOP_BY_HOP, OPTIONS), (ROUTING, LONG_OPTIONS), (DESTINATION_OPTIONS, OPTIONS)), SHOT),
    (packet6(OURS6, 6, 22, (DESTINATION_OPTIONS, LONG_OPTIONS)), OK),
    (packet6(OURS6, 17, 45000, (FRAGMENT, bytes((0, 0, 1)) + bytes(4))), SHOT),
    (packet6(OURS6, 17, 45000, (FRAGMENT, bytes((0, 0, 9)) + bytes(4))), OK),
    (packet6(OURS6, 6, 45000)[:50], OK),
    (packet(OURS, 6, 40000), SHOT),
])
def test_what_the_guard_drops_of_ipv6(frame: bytes, verdict: int) -> None:
    program = guard.assemble(MAP_FD, RANGE, exclusive=False, map6_fd=MAP6_FD)
    assert Machine(program, frame, ENTRIES | ENTRIES6).run() == verdict


@pytest.mark.parametrize(("kind", "verdict"), [(134, OK), (135, SHOT), (136, SHOT), (128, SHOT)])
def test_only_router_advertisements_reach_the_host_when_natgw_is_alone(kind: int, verdict: int) -> None:
    program = guard.assemble(MAP_FD, RANGE, exclusive=True, map6_fd=MAP6_FD)
    message = packet6(OURS6, 58, 0)[:54] + bytes((kind, 0)) + bytes(20)
    assert Machine(program, message, set()).run() == verdict
    assert Machine(program, packet6(OURS6, 6, 22), set()).run() == SHOT
