"""Bytes and what they mean: header layouts, checksums, and frames built or cut apart. No state, no policy.

A frame is held in a buffer as natgw's links deliver it: a 10-byte virtio_net_hdr, then Ethernet, then (mostly) IPv4.

     0         10                 24                44 (no IP options)
    +---------+------------------+-----------------+------------------
    | vnet hdr| dst  src  type   | IPv4 header     | TCP, UDP, ICMP ...
    +---------+------------------+-----------------+------------------

Two levels, as smoltcp has them: raw offsets for code that rewrites in place, and validated values (`IpPacket`,
`ArpMessage`) for everything that must think before it acts.
"""
