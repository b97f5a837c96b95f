"""Names for containers: questions answered from what natgw knows of a network, the others passed on to the host's resolvers.

    resolver    pure: a question and the names it may see in, an answer out, or None: pass it on
    forwarder   pure: what to send to which resolver when, and what to make of what comes back
    zones       what can be seen from a container, and from a gateway's address
    questions   from a socket to an answer, with the two above; dnspython comes with it
    service     sockets where they are needed, for as long as they are needed
"""

HOST_NAME = "host.docker.internal"
