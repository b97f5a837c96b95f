"""What a user has: networks, endpoints, containers, published ports, and the daemon that keeps them.

    daemon      composition and life of it all; the methods the control API calls
    endpoints   attaching a namespace to the bridge and letting it go
    publishing  published ports: reserved, relayed, translated, guarded
    uplink      the way out, and what the host changes on it
    containers  processes of `natgw run`
    ledger      what was made in the kernel, for the `up` after a kill -9
    portspec, ipam, names, inspect, model   pure: grammar, addresses, names, Docker's JSON
"""
