"""`natgw`: all its commands, in the order in which one meets them."""

from __future__ import annotations

import click

from natgw import __version__
from natgw.cli.group import TopGroup, socket_option

MODULES = {
    "lifecycle": ("up", "down", "status"),
    "containers": ("run", "exec", "logs", "stop", "ps", "inspect"),
    "endpoints": ("attach", "detach", "port", "publish", "unpublish"),
    "networks": ("network",),
    "nat": ("nat",),
    "events": ("events",),
    "cni": ("cni",),
    "tables": ("flows", "fdb", "neigh", "stats"),
}
"""Where each command is, in the order in which help shows them."""


@click.group(cls=TopGroup, modules=MODULES, params=[socket_option()],
             context_settings={"help_option_names": ["-h", "--help"]}, examples="""
    # start, run a web server whose port 80 is the host's 8080, and look at it
    natgw up --detach
    natgw run -d --name web -p 8080:80 -- python3 -m http.server 80
    curl http://localhost:8080/
    natgw ps
    natgw flows
    # a shell on the same bridge
    natgw run --name shell -- bash
    # stop, and remove everything
    natgw down
    # what each command does, by example
    natgw run --help
""")
@click.version_option(__version__, prog_name="natgw")
def natgw() -> None:
    """Containers on a user-space bridge, with NAPT and published ports.

    No docker0, no Linux bridge, no iptables rule: one process is bridge, gateway and translator. All commands need root.
    Listings take --json. Errors are one line on stderr; NATGW_DEBUG=1 shows where they come from.
    """
