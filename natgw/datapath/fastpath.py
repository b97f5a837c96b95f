"""The walk for frames of flows that exist, as short as Python can say it.

One closure for each port, so that everything it needs is a local name. One unpack reads all fields that decide; each check
that fails hands the frame to the slow path, which decides alone what is wrong with it. What is left is the rewrite: the
Ethernet header, the IP header and the ports lie in 38 contiguous bytes and are written by one pack.

What measuring taught, on Python 3.11: assigning bytes to a slice of a bytearray costs three times a pack_into of the same
bytes (it copies them to a new bytearray first), a slice for int.from_bytes costs more than adding up seven numbers that are
there already, and a memoryview is best made once for each buffer.

Nothing here may differ from `walk` and `rewrite` in any byte: tests/property/test_fast_slow.py drives both with the same
frames. Measured costs are in docs/performance.md.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from natgw.datapath.coalesce import HEADERS
from natgw.datapath.fastpath6 import build_receiver6
from natgw.datapath.port import ROUTE, Port, Receive
from natgw.datapath.tcp_state import DECIDING_FLAGS, SYN, TcpState
from natgw.datapath.tcp_window import note_syn
from natgw.datapath.verdict import Extra, Verdict
from natgw.tables.flows import Leg, Realm
from natgw.tables.neigh import Neighbour
from natgw.wire.ethernet import ETH, L3
from natgw.wire.ipv4 import ICMP, ICMP_ECHO, ICMP_ECHO_REPLY, TCP, UDP, big_tcp_bytes
from natgw.wire.vnet import GSO_TCPV4, GSO_UDP_L4

if TYPE_CHECKING:
    from natgw.datapath.core import Datapath

# flags gso - csum_start - | macs | type ver ihl tos, total length, id, fragment, ttl protocol, checksum, key | udp length, sum
_HEAD = struct.Struct("!BB4xH2x 12s IHHHHH12s HH")
_REWRITE = struct.Struct("!12sIHHHHH12s")
"""From the MAC addresses to the ports: the same fields, written back."""
_TCP = struct.Struct("!IHHH")
"""Acknowledgement, data offset and flags, window, checksum."""
_U16 = struct.Struct("!H")

_IPV4_NO_OPTIONS = 0x08004500
_KIND_MASK = 0xFFFFFF00
_TYPE_IPV6 = 0x86DD
_FRAGMENT_BITS = 0xBFFF
"""All of the fragment field but DF."""
_DF = 0x4000
_MIN_BYTES = L3 + 28
_CSUM_START = 0x2200
"""csum_start 34, a little-endian field read as a big-endian one."""
_GSO_OF = {TCP: GSO_TCPV4, UDP: GSO_UDP_L4}

_L4 = L3 + 20
_TCP_ACK = _L4 + 8
_TCP_SUM = _L4 + 16
_UDP_SUM = _L4 + 6
_ICMP = struct.Struct("!BxH2s")
"""Type, checksum, identifier."""
_ICMP_WRITE = struct.Struct("!H2s")
_ICMP_SUM = _L4 + 2


def build_receiver(dp: Datapath, port: Port, realm: Realm) -> Receive:
    """The function that takes each frame of `port`: (buffer, bytes in it, now in seconds)."""
    slow = dp.slow
    counts, extras = dp.verdicts, dp.extras
    coalesce, enter = dp.config.coalesce, dp.napt.enter
    outgoing = dp.outgoing
    find_run, begin_run, close_run, put = outgoing.runs.get, outgoing.begin, outgoing.close, outgoing.frames.append
    find_port, find_plan = port.shortcuts.get, port.plans.get
    find_tcp, find_udp, find_icmp = realm.tcp.get, realm.udp.get, realm.icmp.get
    head, rewrite, write_u16 = _HEAD.unpack_from, _REWRITE.pack_into, _U16.pack_into
    read_tcp, read_icmp, write_icmp = _TCP.unpack_from, _ICMP.unpack_from, _ICMP_WRITE.pack_into
    receive6 = build_receiver6(dp, realm)
    bridged, fast_frames = Verdict.BRIDGED.value, Extra.FAST_PATH.value
    known: bytearray | None = None
    view = memoryview(b"")

    def receive(buf: bytearray, n: int, now: float) -> None:
        nonlocal known, view
        if buf is not known:
            known, view = buf, memoryview(buf)
        (flags, gso, csum_start, macs, kind, total, ident, fragment, ttl_proto, ip_sum, key,
         udp_length, l4_sum) = head(buf)

        # The next datagram of a run that is being put together: its payload is all that matters.
        run = find_run(key)
        if run is not None:
            if (flags == 1 and not gso and total == run.total and n >= total + L3 and l4_sum == run.udp_sum
                    and kind == run.kind and ttl_proto == run.ttl_proto and fragment == _DF and macs == run.macs
                    and udp_length == total - 20 and (ident + ip_sum) % 0xFFFF == run.check
                    and csum_start == _CSUM_START and run.end <= run.limit):
                end = run.end
                run.end = end + run.payload
                run.view[end : run.end] = view[HEADERS : total + L3]
                run.count += 1
                return
            close_run(key)

        target = find_port(macs)
        if target is not ROUTE:
            if target is None or n < L3:
                slow(port, buf, n, now)
                return
            counts[bridged] += 1
            extras[fast_frames] += 1
            put((target.transmit, view[:n]))
            return

        length = total or big_tcp_bytes(n, gso)
        end = length + L3
        if (n < _MIN_BYTES or kind & _KIND_MASK != _IPV4_NO_OPTIONS or fragment & _FRAGMENT_BITS or ttl_proto < 0x0200
                or end > n or (flags & 1 and csum_start != _CSUM_START)):
            if kind >> 16 != _TYPE_IPV6 or not receive6(buf, view, n, now):
                slow(port, buf, n, now)
            return

        protocol = ttl_proto & 0xFF
        state = 0
        leg: Leg | None = None
        if protocol == TCP:
            if length >= 40:
                ack, offset_flags, window, l4_sum = read_tcp(buf, _TCP_ACK)
                tcp_header = offset_flags >> 10 & 0x3C
                if 20 <= tcp_header <= length - 20:
                    leg = find_tcp(key)
                    if leg is not None:
                        state = leg.moves[offset_flags & DECIDING_FLAGS]
                        if state < 0:
                            leg = None
                    elif offset_flags & DECIDING_FLAGS == SYN:
                        plan = find_plan(key[:8] + key[10:])
                        if plan is not None and not (
                                kind + total + ident + fragment + ttl_proto + ip_sum + plan.key_sum) % 0xFFFF:
                            leg, state = plan.begin(key, now), TcpState.SYN_SENT
        elif protocol == UDP:
            if udp_length == total - 20 and udp_length >= 8:
                leg = find_udp(key)
        elif protocol == ICMP:
            icmp_type, l4_sum, identifier = read_icmp(buf, _L4)
            if icmp_type == ICMP_ECHO or icmp_type == ICMP_ECHO_REPLY:
                leg = find_icmp(key[:8] + identifier * 2)
                if leg is not None and (icmp_type == ICMP_ECHO) != (leg is leg.flow.original):
                    leg = None
        if (leg is None or not leg.fast
                # The IP checksum verifies (RFC 1071): all words but the addresses, and those summed once for the flow.
                or (kind + total + ident + fragment + ttl_proto + ip_sum + leg.key_sum) % 0xFFFF):
            slow(port, buf, n, now)
            return
        neighbour: Neighbour[Port] = leg.neighbour
        transmit = neighbour.transmit
        if transmit is None or (length > neighbour.mtu and (
                gso & 0x7F != _GSO_OF.get(protocol)
                or (buf[4] | buf[5] << 8) + (20 + tcp_header if protocol == TCP else 28) > neighbour.mtu)):
            slow(port, buf, n, now)
            return

        # All is decided: rewrite and send. (field ^ 0xFFFF) + delta, folded, is RFC 1624 equation 3.
        checksum = (ip_sum ^ 0xFFFF) + leg.ip_delta
        checksum = ((checksum & 0xFFFF) + (checksum >> 16)) ^ 0xFFFF
        if protocol == ICMP:
            rewrite(buf, ETH, neighbour.macs, kind, total, ident, fragment, ttl_proto - 0x100, checksum,
                    leg.rewrite[:8] + key[8:])
            value = (l4_sum ^ 0xFFFF) + leg.l4_delta
            write_icmp(buf, _ICMP_SUM, ((value & 0xFFFF) + (value >> 16)) ^ 0xFFFF, leg.rewrite[8:10])
        else:
            rewrite(buf, ETH, neighbour.macs, kind, total, ident, fragment, ttl_proto - 0x100, checksum, leg.rewrite)
            if flags & 1:
                value = l4_sum + leg.addr_delta
                value = (value & 0xFFFF) + (value >> 16)
            else:
                value = (l4_sum ^ 0xFFFF) + leg.l4_delta
                value = ((value & 0xFFFF) + (value >> 16)) ^ 0xFFFF
            if protocol == TCP:
                write_u16(buf, _TCP_SUM, value)
                leg.ack, leg.window = ack, window
                if state:
                    if offset_flags & SYN:
                        note_syn(leg, buf, _L4, state)
                    enter(leg.flow, state, now)
            elif flags & 1:
                write_u16(buf, _UDP_SUM, value)
            elif l4_sum:
                write_u16(buf, _UDP_SUM, value or 0xFFFF)
        leg.last = now
        leg.packets += 1
        leg.bytes += length
        counts[leg.fast] += 1
        extras[fast_frames] += 1
        if (protocol == UDP and flags == 1 and not gso and fragment == _DF and total > 28 and coalesce
                and neighbour.coalesces):
            run = begin_run(key, buf, end, leg)
            run.macs, run.kind, run.total = macs, kind, total
            run.ttl_proto, run.udp_sum, run.check = ttl_proto, l4_sum, (ident + ip_sum) % 0xFFFF
            return
        put((transmit, view[:end]))

    return receive
