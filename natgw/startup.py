"""What makes a start quick: imports without the collector of cycles.

A program's modules stay for as long as it runs. But the more of them there are, the more often the collector looks at all that
were imported so far: a seventh of natgw's start went into that (docs/performance.md).
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def importing() -> Iterator[None]:
    """Nothing is collected meanwhile, nor afterwards what came to be meanwhile."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
