"""How many descriptors this process has open."""

import gc
import os


def open_descriptors() -> int:
    """Those that wait for the garbage collector are closed first: another test of this process may have left some."""
    gc.collect()
    return len(os.listdir("/proc/self/fd"))
