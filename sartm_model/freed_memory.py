"""Keeps freed memory in the process, for networks that run on a CPU."""

from __future__ import annotations

import ctypes

# Of glibc's <malloc.h>, whose numbers are part of its binary interface.
_TRIM_THRESHOLD = -1
_MMAP_MAX = -4
_ARENA_MAX = -8
_NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Have freed memory serve the next allocation instead of going back to the system.

    A network allocates and frees the same large maps for every image. By default glibc returns each
    to the system, and the next one's pages are then handed out anew, cleared, one fault at a time:
    to copy a map took twice to three times as long as copying takes. One arena for all threads,
    since that of a thread gives back large pieces whatever the threshold.

    Of the whole process and for good. `malloc_trim` still returns what is free.

    Returns:
        Whether it was done: only glibc knows how.
    """
    mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)
    if mallopt is None:
        return False
    wanted = ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, _NEVER))
    return [mallopt(which, value) for which, value in wanted] == [1, 1, 1]
