"""DNS messages (RFC 1035, EDNS of RFC 6891): questions, natgw's answers, and answers of others. dnspython does the bytes.

Three kinds of message matter here: a `Query` from a container, a `Response` of a resolver that a query was passed on to, and
what natgw says itself. Names are compared in lower case and without the dot at the end; a question is repeated as it was
written, for a client may have mixed its case on purpose and look for that in the answer.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address

import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.reversename
import dns.rrset

HEADER_BYTES = 12
PLAIN_UDP_BYTES = 512
"""What a client without EDNS takes by UDP (RFC 1035 section 2.3.4)."""
LARGEST_UDP_BYTES = 4096
LARGEST_BYTES = 65535
OUR_PAYLOAD_BYTES = 1232
"""What natgw tells EDNS clients it takes: no fragments on any link (DNS flag day 2020)."""
HOP_BY_HOP = frozenset((dns.edns.OptionType.COOKIE, dns.edns.OptionType.PADDING, 11))
"""EDNS options that concern the two ends of one exchange only, and are not passed on: COOKIE (RFC 7873), padding (RFC 7830),
and tcp-keepalive (RFC 7828), which must not even be sent by UDP."""

NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED = range(6)
A, PTR, AAAA, ANY = 1, 12, 28, 255
_TRANSFERS = (251, 252)
_QR = 0x80
_OPCODE = 0x78

Address = IPv4Address | IPv6Address


class Refused(Exception):
    """A message that is no question to be answered. `reply` is what its sender is told; None: nothing at all."""

    def __init__(self, reason: str, reply: bytes | None) -> None:
        super().__init__(reason)
        self.reply = reply


class Query:
    """One question. `limit` is how many bytes of answer its sender takes."""

    def __init__(self, message: dns.message.Message, limit: int) -> None:
        question = message.question[0]
        self.message = message
        self.limit = limit
        self.name = plain(question.name)
        self.type = int(question.rdtype)

    @property
    def key(self) -> tuple[object, ...]:
        """What two queries have in common that get the same answer: the question, and how it is to be answered."""
        message = self.message
        flags = message.flags & (dns.flags.RD | dns.flags.CD | dns.flags.AD)
        options = tuple(option.to_wire() for option in message.options if option.otype not in HOP_BY_HOP)
        return self.name, self.type, int(flags), message.edns, message.ednsflags, options

    @property
    def reverse_address(self) -> Address | None:
        """The address a name under in-addr.arpa or ip6.arpa stands for, if the question is about one."""
        try:
            return ip_address(dns.reversename.to_address(self.message.question[0].name))
        except (dns.exception.DNSException, ValueError):
            return None

    def passed_on(self, number: int) -> bytes:
        """The same question as natgw asks it of a resolver, with the id `number`."""
        message = self.message
        copy = dns.message.QueryMessage(id=number)
        copy.flags = message.flags & (dns.flags.RD | dns.flags.CD | dns.flags.AD)
        copy.question = message.question
        if message.edns >= 0:
            options = [option for option in message.options if option.otype not in HOP_BY_HOP]
            copy.use_edns(0, message.ednsflags, max(message.payload, OUR_PAYLOAD_BYTES), options=options)
        return copy.to_wire()


def parse_query(wire: bytes, *, by_tcp: bool) -> Query:
    """The question in a message. Raises Refused for what is none, or none that may be asked here."""
    if len(wire) < HEADER_BYTES:
        raise Refused("runt", None)
    if wire[2] & _QR:
        raise Refused("a response", None)  # to answer it could make two servers talk for ever
    if wire[2] & _OPCODE:
        raise Refused("opcode", _bare(wire, NOTIMP))
    try:
        message = dns.message.from_wire(wire, ignore_trailing=True)
    except (dns.exception.DNSException, ValueError, IndexError):
        raise Refused("malformed", _bare(wire, FORMERR)) from None
    if len(message.question) != 1 or int.from_bytes(wire[4:6], "big") != 1:
        raise Refused("malformed", _bare(wire, FORMERR))  # RFC 9619: exactly one question
    limit = LARGEST_BYTES if by_tcp else PLAIN_UDP_BYTES
    if message.edns >= 0 and not by_tcp:
        limit = min(max(message.payload, PLAIN_UDP_BYTES), LARGEST_UDP_BYTES)
    query = Query(message, limit)
    if message.edns > 0:
        raise Refused("edns version", refusal(query, dns.rcode.BADVERS))
    if message.question[0].rdclass != dns.rdataclass.IN or query.type in _TRANSFERS:
        raise Refused("class or transfer", refusal(query, REFUSED))
    return query


def addresses_answer(query: Query, addresses: Iterable[Address], ttl_s: int) -> bytes:
    """The addresses of a name that exists, of the kind that was asked for: maybe none (NODATA, RFC 2308 section 2.2)."""
    versions = {A: (4,), AAAA: (6,), ANY: (4, 6)}.get(query.type, ())
    records = [("A" if address.version == 4 else "AAAA", str(address)) for address in addresses if address.version in versions]
    return _answer(query, records, ttl_s)


def name_answer(query: Query, name: str | None, ttl_s: int) -> bytes:
    """The name of an address (PTR), or that there is none (NXDOMAIN)."""
    if name is None:
        return refusal(query, NXDOMAIN)
    return _answer(query, [("PTR", f"{name}.")] if query.type in (PTR, ANY) else [], ttl_s)


def refusal(query: Query, rcode: int) -> bytes:
    """An answer that is none."""
    response = _response_to(query)
    response.set_rcode(dns.rcode.Rcode(rcode))
    return response.to_wire()


def _answer(query: Query, records: list[tuple[str, str]], ttl_s: int) -> bytes:
    response = _response_to(query)
    response.flags |= dns.flags.AA
    name = query.message.question[0].name
    for kind in dict.fromkeys(kind for kind, _ in records):
        texts = [text for each, text in records if each == kind]
        response.answer.append(dns.rrset.from_text(name, ttl_s, "IN", kind, *texts))
    return _fitted(response, query.limit)


def _response_to(query: Query) -> dns.message.Message:
    return dns.message.make_response(query.message, recursion_available=True, our_payload=OUR_PAYLOAD_BYTES)


def _bare(wire: bytes, rcode: int) -> bytes:
    """A header alone, for a message whose question cannot be repeated."""
    return wire[:2] + bytes((_QR | wire[2] & 0x79, 0x80 | rcode)) + bytes(8)


class Response:
    """A resolver's answer."""

    def __init__(self, message: dns.message.Message) -> None:
        self.message = message
        self._ttls = [(rrset, rrset.ttl) for section in (message.answer, message.authority, message.additional)
                      for rrset in section]

    @property
    def rcode(self) -> int:
        return int(self.message.rcode())

    @property
    def truncated(self) -> bool:
        return bool(self.message.flags & dns.flags.TC)

    @property
    def is_failure(self) -> bool:
        """Whether another resolver may know better."""
        return self.rcode not in (NOERROR, NXDOMAIN)

    @property
    def keep_s(self) -> int:
        """How long it may be kept, in seconds: the least TTL, and for a negative answer what RFC 2308 section 5 says."""
        message = self.message
        if self.truncated or self.is_failure:
            return 0
        ttls = [rrset.ttl for rrset in (*message.answer, *message.authority)]
        wanted = message.question[0].rdtype
        if not any(rrset.rdtype == wanted or wanted == ANY for rrset in message.answer):
            authorities = [rrset for rrset in message.authority if rrset.rdtype == dns.rdatatype.SOA]
            if not authorities:
                return 0
            ttls += [record.minimum for record in authorities[0]]
        return min(ttls, default=0)

    def for_query(self, query: Query, age_s: int = 0) -> bytes:
        """The bytes for one who asked: its id, its question, its size, TTLs less the time it was kept."""
        message = self.message
        message.id = query.message.id
        message.question = query.message.question
        for rrset, ttl in self._ttls:
            rrset.ttl = max(0, ttl - age_s)
        return _fitted(message, query.limit)


def parse_response(wire: bytes, query: Query, number: int) -> Response | None:
    """A resolver's answer to `query` asked with the id `number`; None if it is none, whoever sent it (RFC 5452 section 9.1)."""
    if len(wire) < HEADER_BYTES or int.from_bytes(wire[:2], "big") != number or not wire[2] & _QR:
        return None
    try:
        message = dns.message.from_wire(wire, ignore_trailing=True)
    except (dns.exception.DNSException, ValueError, IndexError):
        return None
    asked = query.message.question[0]
    if not message.question and message.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        message.question = query.message.question  # a server that could not even read it
    if len(message.question) != 1:
        return None
    answered = message.question[0]
    if (answered.name, answered.rdtype, answered.rdclass) != (asked.name, asked.rdtype, asked.rdclass):
        return None
    return Response(message)


def _fitted(message: dns.message.Message, limit: int) -> bytes:
    """The bytes of a message; if they are too many, its head alone, marked as cut short (TC, RFC 2181 section 9)."""
    try:
        wire = message.to_wire(max_size=LARGEST_BYTES)
    except dns.exception.TooBig:
        wire = bytes(LARGEST_BYTES + 1)  # written anew it may need more than it did as it came
    if len(wire) <= limit:
        return wire
    head = dns.message.QueryMessage(id=message.id)
    head.flags = message.flags | dns.flags.TC
    head.question = message.question
    if message.edns >= 0:
        head.use_edns(message.edns, message.ednsflags, message.payload)
    return head.to_wire()


def plain(name: dns.name.Name) -> str:
    """A name as natgw keeps them: lower case, without the dot at the end."""
    return name.to_text(omit_final_dot=True).lower()
