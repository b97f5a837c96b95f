"""The command `natgw`. Each module holds the commands that belong together; `main` is the way in.

A command imports the client of the API and little else, so that it answers at once: what the daemon needs is imported by
`natgw up` when it runs.
"""

from __future__ import annotations


def main() -> None:
    """Run the command line; ends the process with its exit code."""
    from natgw.cli.main import natgw

    natgw()
