"""Keeps the memory use of a long-running server low: glibc's heaps retain what threads free. Only needed for glibc."""

import contextlib
import ctypes

M_MMAP_THRESHOLD, M_ARENA_MAX = -3, -8  # of mallopt, in malloc.h


def limit_heaps() -> None:
    """Allocate every large block in its own pages, which return to the system as soon as it is freed."""
    with contextlib.suppress(AttributeError, OSError, TypeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, 2**16)
        libc.mallopt(M_ARENA_MAX, 2)


def release_memory() -> None:
    """Return unused heap memory to the system."""
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
