"""Find the objects that code leaves to the garbage collector."""

from __future__ import annotations

import contextlib
import gc


@contextlib.contextmanager
def collecting_garbage():
    """Turn the collector off, and return a list to which the block's garbage is added at its end.

    Objects that exist before the block are frozen: the collector never looks at them again. So each
    collection takes milliseconds, instead of the second that all objects of the tests would take.
    """
    gc.collect()
    gc.freeze()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    left: list[str] = []
    try:
        yield left
        gc.collect()
        left += [f"{type(each).__module__}.{type(each).__qualname__}" for each in gc.garbage]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
