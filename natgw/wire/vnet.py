"""The virtio_net_hdr in front of each frame (virtio 1.2 section 5.1.6, legacy layout of 10 bytes, little endian here).

     0      1         2         4          6            8            10
    +------+---------+---------+----------+------------+------------+
    | flags| gso_type| hdr_len | gso_size | csum_start | csum_offset|
    +------+---------+---------+----------+------------+------------+

With it the kernel hands over one TCP superframe of up to 64 KiB instead of 45 segments, and takes it back the same way.
With NEEDS_CSUM the checksum field at csum_start + csum_offset (counted from the Ethernet header) holds only the
uncomplemented sum of the pseudo-header; whoever needs the packet on a wire completes it.
"""

from __future__ import annotations

import struct

VNET_BYTES = 10
VNET = struct.Struct("<BBHHHH")
NO_OFFLOAD = bytes(VNET_BYTES)

NEEDS_CSUM = 0x01
DATA_VALID = 0x02

GSO_NONE = 0
GSO_TCPV4 = 1
GSO_UDP = 3
GSO_TCPV6 = 4
GSO_UDP_L4 = 5
GSO_ECN = 0x80
"""A flag beside the type: the first segment carries CWR, which must not be repeated (RFC 3168)."""
