"""The processor's memory of a process that trains: kept from one layer to the next instead of given back to the system.

The C library asks the system for every large block anew and gives it back when it is free, and the system then fills each
page with zeros again. A training frees and takes the same large tensors in every layer.
"""

from __future__ import annotations

import ctypes
import platform

TRIM_THRESHOLD, MMAP_MAX = -1, -4  # the parameters' numbers in glibc's malloc.h
NEVER = 2**31 - 1


def keep_memory() -> bool:
    """Let this process keep what it frees; return whether its C library can (glibc). Meant for programs, not libraries.

    What the process takes at the most hardly changes; it gives nothing back before its end.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(MMAP_MAX, 0)) and bool(mallopt(TRIM_THRESHOLD, NEVER))
