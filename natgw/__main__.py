"""`python -m natgw` is the command `natgw`."""

from natgw.cli import main

main()
