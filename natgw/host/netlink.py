"""What natgw asks of the kernel by netlink: interfaces, addresses, routes, and the filter of an uplink.

Addresses and routes have the layouts of pyroute2. For links and traffic control it loads every kind of interface, queue and
action; here are the few attributes of them that natgw uses, by pyroute2's means and with the kernel's names.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface
from typing import Any

from natgw.host.nlsocket import NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NetlinkSocket
from natgw.host.pyroute import NetlinkError, ifaddrmsg, nla, nlmsg, rtmsg

__all__ = ["Netlink", "NetlinkError", "netlink"]

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_NEWADDR, RTM_GETADDR = 20, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RTM_NEWQDISC, RTM_DELQDISC = 36, 37
RTM_NEWTFILTER, RTM_DELTFILTER, RTM_GETTFILTER = 44, 45, 46
"""linux/rtnetlink.h"""

IFF_UP = 1
LOOPBACK_INDEX = 1
"""That of `lo` in every namespace."""
RT_TABLE_MAIN = 254
RTPROT_STATIC, RTN_UNICAST = 4, 1

CLSACT_HANDLE, CLSACT_PARENT = 0xFFFF0000, 0xFFFFFFF1
INGRESS, EGRESS = 0xFFFFFFF2, 0xFFFFFFF3
"""The hooks of clsact: minor numbers FFF2 and FFF3 of FFFF (linux/pkt_sched.h)."""
TCA_BPF_FLAG_ACT_DIRECT = 1
ETH_P_ALL = 3


_LINK_FIELDS = (("family", "B"), ("__align", "x"), ("ifi_type", "H"), ("index", "i"), ("flags", "I"), ("change", "I"))
_LINK_ATTRIBUTES = ((1, "IFLA_ADDRESS", "cdata"), (3, "IFLA_IFNAME", "asciiz"), (4, "IFLA_MTU", "uint32"),
                    (13, "IFLA_TXQLEN", "uint32"), (28, "IFLA_NET_NS_FD", "uint32"))


class LinkMessage(nlmsg):
    """ifinfomsg (linux/rtnetlink.h, linux/if_link.h); of the kinds of interface, a veth pair alone."""

    prefix = "IFLA_"
    fields = _LINK_FIELDS
    nla_map = (*_LINK_ATTRIBUTES, (18, "IFLA_LINKINFO", "info"))

    class info(nla):
        nla_map = ((1, "IFLA_INFO_KIND", "asciiz"), (2, "IFLA_INFO_DATA", "veth"))

        class veth(nla):
            nla_map = ((1, "VETH_INFO_PEER", "peer"),)

            class peer(nla):
                fields = _LINK_FIELDS
                nla_map = _LINK_ATTRIBUTES


class FilterMessage(nlmsg):
    """tcmsg (linux/rtnetlink.h, linux/pkt_cls.h); of the kinds of filter, bpf alone."""

    prefix = "TCA_"
    fields = (("family", "B"), ("pad1", "B"), ("pad2", "H"), ("index", "i"), ("handle", "I"), ("parent", "I"), ("info", "I"))
    nla_map = ((1, "TCA_KIND", "asciiz"), (2, "TCA_OPTIONS", "bpf"))

    class bpf(nla):
        nla_map = ((3, "TCA_BPF_CLASSID", "uint32"), (6, "TCA_BPF_FD", "uint32"), (7, "TCA_BPF_NAME", "asciiz"),
                   (8, "TCA_BPF_FLAGS", "uint32"))


class Netlink(NetlinkSocket):
    """Questions and changes, in the network namespace of the thread that made it. They block, and raise NetlinkError."""

    # -- links -----------------------------------------------------------------------------------------------------------

    def link(self, index: int) -> Any:
        """An interface, as a LinkMessage."""
        return self.ask(_message(LinkMessage, index=index), RTM_GETLINK)[0]

    def links(self) -> list[Any]:
        """All interfaces."""
        return self.ask(_message(LinkMessage), RTM_GETLINK, NLM_F_DUMP)

    def set_link(self, index: int, *, up: bool = False, **attributes: Any) -> None:
        """Change what is given, attributes named as LinkMessage has them: `mtu=1500` is IFLA_MTU. `up` sets it up."""
        flags = {"flags": IFF_UP, "change": IFF_UP} if up else {}
        self.ask(_message(LinkMessage, _attributes("IFLA", attributes), index=index, **flags), RTM_NEWLINK)

    def add_veth(self, ifname: str, peer: str, peer_namespace: int) -> None:
        """A veth pair: one end here, the other in the namespace of this descriptor."""
        far = {"attrs": _attributes("IFLA", {"ifname": peer, "net_ns_fd": peer_namespace})}
        info = {"attrs": [("IFLA_INFO_KIND", "veth"), ("IFLA_INFO_DATA", {"attrs": [("VETH_INFO_PEER", far)]})]}
        self.ask(_message(LinkMessage, _attributes("IFLA", {"ifname": ifname, "linkinfo": info})), RTM_NEWLINK,
                 NLM_F_CREATE | NLM_F_EXCL)

    def delete_link(self, index: int) -> None:
        self.ask(_message(LinkMessage, index=index), RTM_DELLINK)

    # -- addresses and routes --------------------------------------------------------------------------------------------

    def addresses(self, family: int = 0, *, index: int | None = None) -> list[Any]:
        """Addresses of an IP version, or of both; of an interface, or of all. As pyroute2's ifaddrmsg."""
        found = self.ask(_message(ifaddrmsg, family=family), RTM_GETADDR, NLM_F_DUMP)
        return [message for message in found if index in (None, message["index"])]

    def add_address(self, index: int, address: IPv4Interface | IPv6Interface, *, flags: int = 0) -> None:
        attributes = {"local": str(address.ip)}
        if isinstance(address, IPv4Interface):
            attributes["broadcast"] = str(address.network.broadcast_address)
        self.ask(_message(ifaddrmsg, _attributes("IFA", attributes), index=index, family=_family(address), flags=flags,
                          prefixlen=address.network.prefixlen), RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL)

    def routes(self, family: int) -> list[Any]:
        """The main table's routes, as pyroute2's rtmsg."""
        found = self.ask(_message(rtmsg, family=family), RTM_GETROUTE, NLM_F_DUMP)
        return [route for route in found if (route.get_attr("RTA_TABLE") or route["table"]) == RT_TABLE_MAIN]

    def add_default_route(self, gateway: IPv4Address | IPv6Address, index: int) -> None:
        self._default_route(gateway, index, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL)

    def delete_default_route(self, gateway: IPv4Address | IPv6Address, index: int) -> None:
        self._default_route(gateway, index, RTM_DELROUTE)

    def _default_route(self, gateway: IPv4Address | IPv6Address, index: int, kind: int, flags: int = 0) -> None:
        added = {"proto": RTPROT_STATIC, "type": RTN_UNICAST} if kind == RTM_NEWROUTE else {}  # whoever it is from, else
        self.ask(_message(rtmsg, _attributes("RTA", {"gateway": str(gateway), "oif": index}), family=_family(gateway),
                          table=RT_TABLE_MAIN, **added), kind, flags)

    # -- filters at an interface's ingress -------------------------------------------------------------------------------

    def add_clsact(self, index: int) -> None:
        """The queueing discipline that filters hang on."""
        self.ask(_clsact(index), RTM_NEWQDISC, NLM_F_CREATE | NLM_F_EXCL)

    def delete_clsact(self, index: int) -> None:
        self.ask(_clsact(index), RTM_DELQDISC)

    def add_filter(self, index: int, priority: int, program: int, name: str, *, replace: bool = False) -> None:
        """Let an eBPF program, given by a descriptor, decide about each packet that comes in."""
        options = {"attrs": _attributes("TCA_BPF", {"classid": 1, "fd": program, "name": name,
                                                    "flags": TCA_BPF_FLAG_ACT_DIRECT})}
        self.ask(_filter(index, priority, {"kind": "bpf", "options": options}), RTM_NEWTFILTER,
                 NLM_F_CREATE | (NLM_F_REPLACE if replace else NLM_F_EXCL))

    def delete_filter(self, index: int, priority: int) -> None:
        self.ask(_filter(index, priority, {"kind": "bpf"}), RTM_DELTFILTER)

    def filters(self, index: int, parent: int) -> list[Any]:
        """What hangs on a hook of clsact."""
        return self.ask(_message(FilterMessage, index=index, parent=parent), RTM_GETTFILTER, NLM_F_DUMP)


@contextmanager
def netlink() -> Iterator[Netlink]:
    """A netlink socket in the namespace of the calling thread."""
    conversation = Netlink()
    try:
        yield conversation
    finally:
        conversation.close()


def _message(layout: type[nlmsg], attributes: list[tuple[str, Any]] | None = None, **fields: int) -> Any:
    message = layout()
    message.update(fields)
    message["attrs"] = attributes or []
    return message


def _attributes(prefix: str, values: dict[str, Any]) -> list[tuple[str, Any]]:
    return [(f"{prefix}_{name.upper()}", value) for name, value in values.items()]


def _family(address: IPv4Address | IPv6Address) -> int:
    return socket.AF_INET if address.version == 4 else socket.AF_INET6


def _clsact(index: int) -> Any:
    return _message(FilterMessage, [("TCA_KIND", "clsact")], index=index, handle=CLSACT_HANDLE, parent=CLSACT_PARENT)


def _filter(index: int, priority: int, attributes: dict[str, Any]) -> Any:
    """A filter at ingress, for packets of all protocols."""
    return _message(FilterMessage, _attributes("TCA", attributes), index=index, handle=1, parent=INGRESS,
                    info=priority << 16 | socket.htons(ETH_P_ALL))
