"""The fast path's branch for IPv6: the same as `fastpath` for packets without extension headers, in fewer steps.

There is no header checksum to verify or to adjust. Addresses and ports are 36 bytes in a row, and the Ethernet header, the IP
header and they are written by one pack, as there. What has extension headers goes the slow way, fragments among it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING

from natgw.datapath.tcp_state import DECIDING_FLAGS, SYN
from natgw.datapath.tcp_window import note_syn
from natgw.datapath.verdict import Extra
from natgw.tables.flows import Leg, Realm
from natgw.tables.neigh import Neighbour
from natgw.wire.ethernet import ETH, L3
from natgw.wire.ipv4 import ICMPV6, TCP, UDP
from natgw.wire.ipv6 import ICMPV6_ECHO, ICMPV6_ECHO_REPLY, IPV6_BYTES
from natgw.wire.vnet import GSO_TCPV6, GSO_UDP_L4

if TYPE_CHECKING:
    from natgw.datapath.core import Datapath

# flags gso - segment bytes csum_start - | - | version class flow, payload length, next header, hop limit, key
_HEAD = struct.Struct("<BBxxHH")
_IP = struct.Struct("!IHBB36s")
_REWRITE = struct.Struct("!12sHIHBB36s")
_TYPE_IPV6 = 0x86DD
_CSUM_START = 54
_L4 = L3 + IPV6_BYTES
_MIN_BYTES = _L4 + 8
_TCP = struct.Struct("!IHHH")
_TCP_ACK, _TCP_SUM, _UDP_LENGTH, _UDP_SUM, _ICMP_SUM = _L4 + 8, _L4 + 16, _L4 + 4, _L4 + 6, _L4 + 2
_UDP = struct.Struct("!HH")
_ICMP = struct.Struct("!BxH2s")
_ICMP_WRITE = struct.Struct("!H2s")
_U16 = struct.Struct("!H")
_GSO_OF = {TCP: GSO_TCPV6, UDP: GSO_UDP_L4}


def build_receiver6(dp: Datapath, realm: Realm) -> Callable[[bytearray, memoryview, int, float], bool]:
    """What takes a frame with IPv6 to the gateway: (buffer, a view of it, bytes in it, now in seconds). False: it did not."""
    counts, extras = dp.verdicts, dp.extras
    find_tcp, find_udp, find_icmp = realm.tcp.get, realm.udp.get, realm.icmp.get
    head, ip, rewrite, write_u16 = _HEAD.unpack_from, _IP.unpack_from, _REWRITE.pack_into, _U16.pack_into
    read_tcp, read_udp, read_icmp, write_icmp = _TCP.unpack_from, _UDP.unpack_from, _ICMP.unpack_from, _ICMP_WRITE.pack_into
    fast_frames, enter, put = Extra.FAST_PATH.value, dp.napt.enter, dp.outgoing.frames.append

    def receive(buf: bytearray, view: memoryview, n: int, now: float) -> bool:
        flags, gso, gso_bytes, csum_start = head(buf, 0)
        kind, payload, protocol, hop_limit, key = ip(buf, L3)
        end = payload + _L4
        if n < _MIN_BYTES or kind >> 28 != 6 or hop_limit < 2 or end > n or (flags & 1 and csum_start != _CSUM_START):
            return False
        leg: Leg | None = None
        state = 0
        headers = 48
        if protocol == TCP:
            if payload >= 20:
                ack, offset_flags, window, l4_sum = read_tcp(buf, _TCP_ACK)
                tcp_header = offset_flags >> 10 & 0x3C
                if 20 <= tcp_header <= payload:
                    headers = IPV6_BYTES + tcp_header
                    leg = find_tcp(key)
                    if leg is not None:
                        state = leg.moves[offset_flags & DECIDING_FLAGS]
                        if state < 0:
                            return False
        elif protocol == UDP:
            if payload >= 8:
                udp_length, l4_sum = read_udp(buf, _UDP_LENGTH)
                if udp_length == payload:
                    leg = find_udp(key)
        elif protocol == ICMPV6 and payload >= 8:
            icmp_type, l4_sum, identifier = read_icmp(buf, _L4)
            if icmp_type == ICMPV6_ECHO or icmp_type == ICMPV6_ECHO_REPLY:
                leg = find_icmp(key[:32] + identifier * 2)
                if leg is not None and (icmp_type == ICMPV6_ECHO) != (leg is leg.flow.original):
                    leg = None
        if leg is None or not leg.fast:
            return False
        neighbour: Neighbour[object] = leg.neighbour
        transmit = neighbour.transmit
        total = payload + IPV6_BYTES
        if transmit is None or (total > neighbour.mtu and (
                gso & 0x7F != _GSO_OF.get(protocol) or gso_bytes + headers > neighbour.mtu)):
            return False

        # All is decided, as in fastpath.
        if flags & 1:
            value = l4_sum + leg.addr_delta
            value = (value & 0xFFFF) + (value >> 16)
        else:
            value = (l4_sum ^ 0xFFFF) + leg.l4_delta
            value = ((value & 0xFFFF) + (value >> 16)) ^ 0xFFFF
        if protocol == ICMPV6:
            rewrite(buf, ETH, neighbour.macs, _TYPE_IPV6, kind, payload, protocol, hop_limit - 1, leg.rewrite[:32] + key[32:])
            write_icmp(buf, _ICMP_SUM, value, leg.rewrite[32:34])
        else:
            rewrite(buf, ETH, neighbour.macs, _TYPE_IPV6, kind, payload, protocol, hop_limit - 1, leg.rewrite)
            if protocol == TCP:
                leg.ack, leg.window = ack, window
                write_u16(buf, _TCP_SUM, value)
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
        leg.bytes += total
        counts[leg.fast] += 1
        extras[fast_frames] += 1
        put((transmit, view[:end]))
        return True

    return receive
