"""`natgw-cni`: what a container engine that speaks CNI calls (CNI specification 0.4.0, 1.0.0, 1.1.0).

The plugin is a messenger. It reads what the engine says in the environment and on standard input (`call`), asks the daemon
over its control socket (`client`), and writes the answer in the words of the version that was asked for (`results`). What a
container has is known to the daemon alone, so that nothing is kept on disk here.

An engine starts the plugin anew for each container and each network, and waits. So this package stands apart from the layers:
it imports only the standard library, of that only what is quickly there (no dataclasses, typing, ipaddress, http), and nothing
else of natgw.
"""

from __future__ import annotations


def main() -> int:
    """Do what CNI_COMMAND says; gives the exit code."""
    from natgw.cni.plugin import main

    return main()
