"""The process before it computes: huge pages for large tensors, and as many threads as it may use. Imports no torch."""

from __future__ import annotations

import math
import os
from pathlib import Path

HUGE_PAGES = "THP_MEM_ALLOC_ENABLE"


def use_huge_pages() -> None:
    """Let torch put large tensors on the CPU into huge pages. To be called before the first tensor is made.

    A fresh large tensor costs page faults, not arithmetic, so memory-bound work is about 3 x faster with them. Linux
    only, with transparent huge pages at `madvise` or `always`. The command line does this; a library must not touch the
    environment by itself. Where THP_MEM_ALLOC_ENABLE is set already (0 turns it off), it stays as it is.
    """
    os.environ.setdefault(HUGE_PAGES, "1")


def usable_cores(cgroup: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """CPU cores that this process may use: its affinity, and the quota of its container (cgroup v2), at least 1.

    torch starts a thread for each core of the machine, which in a container with 2 of 64 makes it crawl.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = cgroup.read_text().split()
        cores = min(cores, math.ceil(int(quota) / int(period)))
    except (OSError, ValueError):  # no cgroup v2, or no limit ("max")
        pass
    return max(cores, 1)


def set_threads(count: int | None = None) -> int:
    """Let torch use `count` threads. None: OMP_NUM_THREADS if set, else this process' share of `usable_cores()`.

    Returns the number. Of the processes that torchrun starts on this machine each gets an equal share.
    """
    import torch

    if count is None:
        asked = os.environ.get("OMP_NUM_THREADS", "")
        share = usable_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        count = int(asked) if asked.isdigit() and int(asked) > 0 else max(share, 1)
    elif count < 1:
        raise ValueError(f"threads must be at least 1, got {count}; leave it out to use the cores that there are")
    torch.set_num_threads(count)
    return count
