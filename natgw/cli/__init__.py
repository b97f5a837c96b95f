"""The command `natgw`. Each module holds the commands that belong together; `main` is the way in.

A command's module is imported when it is asked for, and itself imports the client of the API and little else, so that it
answers at once: what the daemon needs is imported by `natgw up` when it runs.
"""

from __future__ import annotations

from natgw.startup import importing


def main() -> None:
    """Run the command line; ends the process with its exit code."""
    with importing():
        from natgw.cli.main import natgw

    natgw()
