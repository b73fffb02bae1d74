"""Keeps a server small that runs for months: glibc's heaps hold on to what threads free. Other systems need nothing."""

import contextlib
import ctypes

M_MMAP_THRESHOLD, M_ARENA_MAX = -3, -8  # of mallopt, in malloc.h


def limit_heaps() -> None:
    """Give every large block pages of its own, which go back to the system as soon as it is freed."""
    with contextlib.suppress(AttributeError, OSError, TypeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, 2**16)
        libc.mallopt(M_ARENA_MAX, 2)


def release_memory() -> None:
    """Return what the heaps hold unused to the system."""
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
