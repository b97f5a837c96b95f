"""python -m tools.demolib [--light] [--keep] [--remove], as root and with natgw installed; tools/demo sees to both."""

from __future__ import annotations

import argparse
import signal
import sys
from types import FrameType

from rich.console import Console

from tools.demolib.stage import DemoError, Stage
from tools.demolib.story import Story, how_to_look_around


def main() -> int:
    parser = argparse.ArgumentParser(prog="tools/demo")
    for option in ("--light", "--keep", "--remove"):
        parser.add_argument(option, action="store_true")
    options = parser.parse_args()
    console = Console(highlight=False) if sys.stdout.isatty() else Console(highlight=False, width=140)
    if options.remove:
        stages = Stage.left_over(console)
        if not stages:
            console.print("nothing of a demonstration is left on this machine")
        return max([remove(stage) for stage in stages], default=0)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    stage = Stage.new(console)
    code = show(stage, light=options.light)
    if options.keep and code == 0:
        console.rule(style="blue")
        console.print(how_to_look_around(stage), soft_wrap=True)
        return 0
    # From here on a second Ctrl-C must not leave half of it behind.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    console.print()
    console.rule("[bold]Removing everything", align="left", style="blue")
    return max(code, remove(stage))


def show(stage: Stage, *, light: bool) -> int:
    """The exit code: 0 when every step went as told."""
    try:
        Story(stage, light=light).tell()
    except DemoError as error:
        complain(str(error))
        return 1
    except KeyboardInterrupt:
        complain("interrupted")
        return 130
    return 0


def remove(stage: Stage) -> int:
    """Remove the stage, and look whether anything is left of it."""
    stage.remove()
    left = stage.leftovers()
    if left:
        complain(f"still there of {stage.name}: {', '.join(left)}")
        return 1
    stage.console.print(f"[bold green]✓[/] nothing is left of {stage.name}: no namespace, process or file")
    return 0


def complain(message: str) -> None:
    sys.stdout.flush()  # in its place after what was shown, also where both streams go to one file
    print(f"tools/demo: {message}", file=sys.stderr, flush=True)


def stop(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
