"""Python's search for cycles, kept away from rows: they are trees, and to search them is a third
of the work of making them.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def cycles_ignored() -> Iterator[None]:
    """Keep cycles until the end, or until `gc.collect()`, which then sees new objects only."""
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()
