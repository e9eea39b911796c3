"""How the benchmark measures: in turns, with medians; memory as what the allocator gave out, or as a process' peak."""

from __future__ import annotations

import gc
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

MB = 1e6
os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler's own chatter


@dataclass(frozen=True)
class Measured:
    """What a row's function found: seconds, MB, ... of every side that could be run here."""

    sides: dict[str, float]
    unit: str = "s"
    data: str = ""  # what was measured on
    work: tuple[str, float] | None = None  # a machine limit (limits.py) and how much of it one run of ours needs
    details: list[dict[str, Any]] = field(default_factory=list)  # a series to draw


def medians(
    sides: Mapping[str, Callable[[], object]], device: torch.device, repeats: int = 5, least: float = 0.02
) -> dict[str, float]:
    """Median seconds of each side, measured in turns (A B A B ...), after a first turn that does not count.

    A quick side is called as often in a turn as takes `least` seconds. A side that returns a float has measured itself.
    """
    counts = {}
    for name, call in sides.items():
        seconds = timed(call, 1, device)
        if seconds < least:  # the first call may have compiled, or filled a cache
            seconds = timed(call, 1, device)
        counts[name] = max(1, min(1000, round(least / max(seconds, 1e-9))))
    times: dict[str, list[float]] = {name: [] for name in sides}
    with no_collection():
        for _ in range(repeats):
            for name, call in sides.items():
                times[name].append(timed(call, counts[name], device))
    return {name: statistics.median(values) for name, values in times.items()}


def timed(call: Callable[[], object], count: int, device: torch.device) -> float:
    """Seconds of one call, averaged over `count`; or what the calls say that they took."""
    synchronize(device)
    begun = time.perf_counter()
    told = [call() for _ in range(count)]
    synchronize(device)
    seconds = (time.perf_counter() - begun) / count
    return statistics.mean(told) if all(isinstance(value, float) for value in told) else seconds  # type: ignore[type-var]


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def no_collection() -> Iterator[None]:
    """Collect garbage now, and not while something is timed."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let torch use so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def peak(call: Callable[[], object], device: torch.device) -> float:
    """MB that tensors held at most at one time during the call, beyond what they held before it.

    Exact: it is what torch's allocator was asked for, buffers inside operators included. What numpy, numba and the
    matrix libraries take for themselves is not in it.
    """
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        call()
        return (torch.cuda.max_memory_allocated(device) - before) / MB
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
    events = profiler.profiler.kineto_results.events()
    changes = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")
    held = most = 0
    for _, change in changes:
        held += change
        most = max(most, held)
    return most / MB


def peak_of_process() -> float:
    """MB that this process held at most since it began, or since `reset_peak`; files mapped into it included."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().split("VmHWM:")[1].split()[0]) * 1024 / MB
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / MB if sys.platform == "darwin" else most * 1024 / MB


def reset_peak() -> float:
    """Let `peak_of_process` begin anew, where the system can (Linux). Returns what it says now."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return peak_of_process()


def in_fresh_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """What the function, one of a module, gives in a process of its own, whose peak of memory is its own too."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()
