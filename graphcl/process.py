"""The process before it computes: memory for large tensors, threads, bfloat16. Imports no torch of itself."""

from __future__ import annotations

import ctypes
import math
import os
import platform
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HUGE_PAGES = "THP_MEM_ALLOC_ENABLE"
_MMAP_MAX, _TRIM_THRESHOLD = -4, -1  # of glibc's mallopt
_asked_here = False  # for huge pages, not by who started the process


def tune_memory() -> None:
    """Let large tensors on the CPU cost no page faults. To be called before the first tensor is made. Linux only.

    A fresh large tensor costs page faults, not arithmetic. torch is told to put them into huge pages (with transparent
    huge pages at `madvise` or `always`), and glibc to keep what is freed for the next tensor instead of giving it back
    to the system at once; so memory that was needed once stays with the process.

    The command line does this; a library must not change its process by itself. What the environment sets stays:
    THP_MEM_ALLOC_ENABLE=0 turns huge pages off, and any MALLOC_MMAP_MAX_ leaves glibc as it is.
    """
    global _asked_here
    if HUGE_PAGES not in os.environ:
        os.environ[HUGE_PAGES], _asked_here = "1", True
    _set_malloc()


def _set_malloc() -> None:
    if sys.platform.startswith("linux") and "MALLOC_MMAP_MAX_" not in os.environ:
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
        if mallopt is not None:
            mallopt(_MMAP_MAX, 0)
            mallopt(_TRIM_THRESHOLD, 2**31 - 1)


@contextmanager
def untuned() -> Iterator[None]:
    """Processes that are started in it have the memory that others have, not what `tune_memory` gave this one."""
    if not _asked_here:
        yield
        return
    kept = os.environ.pop(HUGE_PAGES)
    try:
        yield
    finally:
        os.environ[HUGE_PAGES] = kept


def multiplies_bf16() -> bool:
    """Whether the CPU has instructions for products in bfloat16, as far as torch tells."""
    import torch

    asked = [getattr(torch.cpu, f"_is_{name}_supported", None) for name in ("avx512_bf16", "amx_tile")]
    if platform.machine() in ("x86_64", "AMD64") and all(asked):
        return any(ask() for ask in asked if ask)
    known = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return known is None or bool(known())


def warn_of_slow_bf16(precision: str, device: str) -> None:
    """Warn where `bf16-mixed` is asked for on a CPU that would emulate it, which is slower than float32."""
    if precision == "bf16-mixed" and device == "cpu" and not multiplies_bf16():
        warnings.warn(
            "precision bf16-mixed on a CPU without bfloat16 instructions (AVX512-BF16 or AMX) is slower than 32, on "
            "some many times; take precision 32",
            stacklevel=3,
        )


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

    Returns the number. Of the processes that torchrun starts on this machine each gets an equal share: the 1 that
    torchrun itself writes into OMP_NUM_THREADS does not count.
    """
    import torch

    if count is None:
        asked, beside = (os.environ.get(name, "") for name in ("OMP_NUM_THREADS", "LOCAL_WORLD_SIZE"))
        processes = max(int(beside), 1) if beside.isdigit() else 1
        if asked == "1" and processes > 1 and "TORCHELASTIC_RUN_ID" in os.environ:
            asked = ""
        count = int(asked) if asked.isdigit() and int(asked) > 0 else max(usable_cores() // processes, 1)
    elif count < 1:
        raise ValueError(f"threads must be at least 1, got {count}; leave it out to use the cores that there are")
    torch.set_num_threads(count)
    return count
