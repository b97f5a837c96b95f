"""DNS servers for tests, in namespaces outside: one of dnspython's making that can be told how to misbehave."""

from __future__ import annotations

import subprocess
import sys

from tests.namespaces.topology import Namespace, eventually

_SERVER = r"""
import dns.flags, dns.message, dns.rcode, dns.rrset, selectors, socket, sys
address = sys.argv[1]
udp, tcp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), socket.socket()
tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
for each in (udp, tcp):
    each.bind((address, 53))
tcp.listen(16)
def answer(wire, limit):
    query = dns.message.from_wire(wire)
    name, kind = query.question[0].name, query.question[0].rdtype
    label = name.labels[0].decode().lower()
    print("tcp" if limit > 9999 else "udp", name, query.edns, len(query.options), flush=True)
    reply = dns.message.make_response(query, recursion_available=True)
    if label == "silent":
        return None
    if label == "nobody":
        reply.set_rcode(dns.rcode.NXDOMAIN)
        reply.authority.append(dns.rrset.from_text("test.", 300, "IN", "SOA", "ns.test. root.test. 1 2 3 4 300"))
    elif label == "big":
        reply.answer.append(dns.rrset.from_text(name, 60, "IN", "TXT", *("x" * 200 + str(n) for n in range(20))))
    elif kind == 1:
        reply.answer.append(dns.rrset.from_text(name, 60, "IN", "A", "203.0.113.80"))
    wire = reply.to_wire(max_size=65535)
    if len(wire) > limit:
        reply.answer.clear()
        reply.flags |= dns.flags.TC
        wire = reply.to_wire()
    return wire
selector = selectors.DefaultSelector()
for each in (udp, tcp):
    selector.register(each, selectors.EVENT_READ)
while True:
    for key, _ in selector.select():
        if key.fileobj is udp:
            wire, client = udp.recvfrom(4096)
            reply = answer(wire, 1232)
            if reply:
                udp.sendto(reply, client)
        else:
            connection, _ = tcp.accept()
            with connection, connection.makefile("rwb") as stream:
                wire = stream.read(int.from_bytes(stream.read(2), "big"))
                reply = answer(wire, 65535)
                if reply:
                    stream.write(len(reply).to_bytes(2, "big") + reply)
"""


def resolver(namespace: Namespace, address: str) -> subprocess.Popen[str]:
    """A server at port 53: `silent` gets no answer, `nobody` does not exist, `big` is too big for UDP.

    The rest is 203.0.113.80.

    It prints a line for each question: transport, name, EDNS version, number of EDNS options.
    """
    process = namespace.spawn(sys.executable, "-u", "-c", _SERVER, address)
    eventually(lambda: namespace.listening(53) and namespace.listening(53, "udp"))
    return process
