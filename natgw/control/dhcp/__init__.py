"""Addresses by DHCP, for stations that ask: a server for each network that wants one.

    server      pure: a message and `now` in, a message out (RFC 2131 section 4.3)
    service     servers put on the bridges that want one, and their leases kept

Messages come by the datapath's own hook (natgw.datapath.dhcp), not by a socket.
"""
