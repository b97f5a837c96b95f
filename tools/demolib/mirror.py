"""A web server that tells each visitor the address and port it comes from: python -m tools.demolib.mirror ADDRESS PORT."""

from __future__ import annotations

import socketserver
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server(ThreadingHTTPServer):
    def server_bind(self) -> None:
        """Without asking DNS for its own name, as http.server's does: nobody would answer here."""
        socketserver.TCPServer.server_bind(self)


class Mirror(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        address, port = self.client_address[:2]
        body = f"you come from {address}:{port}\n".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """The demonstration shows what the visitors get, not this."""


if __name__ == "__main__":
    Server((sys.argv[1], int(sys.argv[2])), Mirror).serve_forever()
