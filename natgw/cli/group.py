"""The command line's frame: what an error looks like, and with which code the process ends.

Exit codes: 0 done, 1 an error, 2 a wrong command line, 130 Ctrl-C; `run` and `exec` pass on the process's own. An error is
one line on stderr. NATGW_DEBUG=1 shows where it came from.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import click

from natgw.api import SOCKET_VARIABLE, socket_path
from natgw.api.client import Client
from natgw.control.options import DEFAULT_SOCKET
from natgw.errors import NatgwError

USAGE, INTERRUPTED = 2, 130
DEBUG_VARIABLE = "NATGW_DEBUG"


def socket_option() -> click.Option:
    """`--socket`, which may stand before the command and after it."""
    return click.Option(["--socket"], metavar="PATH", expose_value=False, callback=_choose_socket, is_eager=True,
                        help=f"Socket of the daemon  [default: ${SOCKET_VARIABLE}, or {DEFAULT_SOCKET}]")


def _choose_socket(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    if value is not None or ctx.obj is None:
        ctx.obj = Client(value or socket_path())


class TeachingCommand(click.Command):
    """A command whose examples stand at the end of its help, under a heading of their own."""

    def __init__(self, *args: Any, examples: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = examples
        self.params.append(socket_option())

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_examples(formatter, self.examples)


class TeachingGroup(click.Group):
    """A group of such commands, listed in the order in which they were added."""

    command_class = TeachingCommand

    def __init__(self, *args: Any, examples: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = examples

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_examples(formatter, self.examples)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args and not ctx.resilient_parsing:  # which completion does
            click.echo(ctx.get_help(), err=True)
            ctx.exit(USAGE)
        return super().parse_args(ctx, args)


class TopGroup(TeachingGroup):
    """The command `natgw` itself: nothing gets past its `main` but an exit code.

    Its commands are named by `modules`, each under the module it is in, and a module is imported when one of its commands is
    asked for (click's documentation has this as lazily loading subcommands): who types `natgw ps` need not wait for the rest.
    """

    def __init__(self, *args: Any, modules: Mapping[str, Sequence[str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._modules = {name: module for module, names in modules.items() for name in names}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._modules)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in self._modules and cmd_name not in self.commands:
            module = importlib.import_module(f"natgw.cli.{self._modules[cmd_name]}")
            # A command whose name Python or the module has already has an underscore behind it.
            self.add_command(getattr(module, f"{cmd_name}_", None) or getattr(module, cmd_name))
        return super().get_command(ctx, cmd_name)

    def main(self, args: Sequence[str] | None = None, prog_name: str | None = None, complete_var: str | None = None,
             standalone_mode: bool = True, **extra: Any) -> NoReturn:
        try:
            code = super().main(args, prog_name or "natgw", complete_var, standalone_mode=False, **extra)
        except click.UsageError as error:
            path = error.ctx.command_path if error.ctx else "natgw"
            fail(f"{path}: {error.format_message()} See '{path} --help'.", error.exit_code)
        except click.ClickException as error:
            fail(error.format_message(), error.exit_code)
        except (click.Abort, KeyboardInterrupt):
            sys.exit(INTERRUPTED)
        except NatgwError as error:
            fail(str(error))
        except Exception as error:
            fail(f"{type(error).__name__}: {error} ({DEBUG_VARIABLE}=1 shows where)")
        sys.exit(code if isinstance(code, int) else 0)


def fail(message: str, code: int = 1) -> NoReturn:
    """Say in one line on stderr what is wrong, and end."""
    if os.environ.get(DEBUG_VARIABLE) and sys.exc_info()[0] is not None:
        import traceback

        traceback.print_exc()
    line = " ".join(message.split())
    click.echo(line if line.startswith("natgw") else f"natgw: {line}", err=True)
    sys.exit(code)


def write_examples(formatter: click.HelpFormatter, examples: str) -> None:
    """Comment lines explain, the others are commands; both as they were written."""
    lines = examples.strip().splitlines()
    if lines:
        with formatter.section("Examples"):
            for line in lines:
                formatter.write(f"{'':>{formatter.current_indent}}{line.strip()}\n" if line.strip() else "\n")
