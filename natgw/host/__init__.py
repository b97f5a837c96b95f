"""Descriptors, netlink and the event loop: everything natgw asks of the kernel, and nothing it decides.

    netns       entering and making network namespaces
    links       taps and veth pairs with their ends configured, and the uplink's packet socket
    netlink     pyroute2, as little of it as is needed
    interfaces  reading interfaces, addresses and routes
    uplink      following what the host changes on the uplink
    guard, bpf  the filter that lets natgw share the host's address
    sysctl      ports the host must not choose
    relay       a published port on the host itself
    pump        frames between links and the datapath
"""
