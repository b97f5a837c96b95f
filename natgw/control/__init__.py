"""What a user has: networks, endpoints, containers, published ports, and the daemon that keeps them.

    daemon      composition and life of it all; the methods the control API calls
    networks    made, found, taken away; each a bridge with the host's own port
    endpoints   an address, its published ports and its link: for containers, and for engines
    connecting  a container's networks, and which of them is its way out
    containers  namespaces and processes of `natgw run` and `natgw attach`
    publishing  published ports: reserved, relayed, translated, guarded
    uplink      the way out, and what the host changes on it
    events      what happens to networks, for whoever listens
    store       what outlives the daemon, in SQLite
    ledger      what was made in the kernel, for the `up` after a kill -9
    portspec, ipam, names, netoptions, netrequest, inspect, model   pure: grammar, addresses, names, Docker's options and JSON
"""
