"""IPv6 in the laboratory: addresses for the outer wire, a web server of IPv6's, and what a namespace has of it."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.conftest import eventually
from tests.namespaces.topology import Lab, Namespace

OUTSIDE6, GATEWAY6, BEYOND6 = "2001:db8:51::1", "2001:db8:51::2", "2001:db8:99::1"


def add_ipv6(lab: Lab) -> None:
    """Addresses for the outer wire, and one behind the outside host that only a default route leads to."""
    for namespace, address in ((lab.outside, OUTSIDE6), (lab.gateway, GATEWAY6)):
        namespace.run("ip", "addr", "add", f"{address}/64", "dev", "eth0", "nodad")
    lab.outside.run("ip", "addr", "add", f"{BEYOND6}/128", "dev", "lo", "nodad")
    lab.gateway.run("ip", "-6", "route", "add", "default", "via", OUTSIDE6)


def addresses6(namespace: Namespace, ifname: str = "eth0") -> list[str]:
    """The global IPv6 addresses of an interface, with their lengths."""
    links = json.loads(namespace.run("ip", "-j", "-6", "addr", "show", "dev", ifname, "scope", "global").stdout)
    return [f"{info['local']}/{info['prefixlen']}" for link in links for info in link.get("addr_info", []) if "local" in info]


def ways_out6(namespace: Namespace) -> list[tuple[str, str]]:
    """(gateway, interface) of each IPv6 default route."""
    routes = json.loads(namespace.run("ip", "-j", "-6", "route", "show", "default").stdout)
    return [(route["gateway"], route["dev"]) for route in routes]


def pings6(namespace: Namespace, address: str) -> bool:
    return namespace.run("ping", "-6", "-c", "1", "-W", "1", address, check=False).returncode == 0


WHO_ASKS = """
import http.server, socket, socketserver, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.client_address[0].encode())
class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
    server_bind = socketserver.TCPServer.server_bind  # without asking DNS for its own name
Server(("::", int(sys.argv[1])), Handler).serve_forever()
"""


def who_asks_server(namespace: Namespace, port: int) -> subprocess.Popen[str]:
    """A web server that answers with the address of who asks, listening when this returns."""
    process = namespace.spawn(sys.executable, "-c", WHO_ASKS, str(port))
    eventually(lambda: namespace.listening(port))
    return process


def who_asks(namespace: Namespace, host: str, port: int) -> str:
    """What such a server answers. Empty if it does not."""
    return namespace.run("curl", "-sS6", "--max-time", "3", f"http://[{host}]:{port}/", check=False).stdout
