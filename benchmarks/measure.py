"""How the benchmark measures: in turns, with medians; memory as what the allocator gave out, or as a process' peak.

`graphcl` tunes the memory of its process (graphcl/process.py), what people run does not. So on a CPU theirs has its
turns in a second process, `Others`, which is as torch and glibc have it by default.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import statistics
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from graphcl.process import untuned

MB = 1e6
# The sides that are what people run.
PEOPLE = frozenset({"loop", "dataset", "scatter", "GINConv", "masks", "dense", "MoCo", "from_smiles", "list of Data"})
PEOPLE |= {"PyGCL", "graphssl"}
os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler's own chatter


@dataclass(frozen=True)
class Measured:
    """What a row's function found: seconds, MB, ... of every side that could be run here."""

    sides: dict[str, float]
    unit: str = "s"
    data: str = ""  # what was measured on
    work: tuple[str, float] | None = None  # a machine limit (limits.py) and how much of it one run of ours needs
    details: list[dict[str, Any]] = field(default_factory=list)  # a series to draw
    peaks: dict[str, float] = field(default_factory=dict)  # MB of every side, where memory was asked for


def medians(
    sides: Mapping[str, Callable[[], object]],
    device: torch.device,
    repeats: int = 5,
    least: float = 0.02,
    most: float = 2.0,
    peaks: dict[str, float] | None = None,
) -> dict[str, float]:
    """Median seconds of each side, measured in turns (A B A B ...), after a first turn that does not count.

    A quick side is called as often in a turn as takes `least` seconds. One that takes `most` seconds and more has its
    first turn alone, and that counts; of ours the second, since the first may have compiled. A side that returns a
    float has measured itself.
    peaks: is filled with the `peak` of each side, in MB, which its first turn tells.
    While there are `Others`, sides of PEOPLE have their turns there.
    """

    def turn(name: str, count: int, watched: bool = False) -> tuple[float, float]:
        """Seconds of a call, and MB if it is watched."""
        if Others.beside is not None and name in PEOPLE:
            return Others.beside.turn(name, count, watched)
        if not watched:
            return timed(sides[name], count, device), 0.0
        seconds: list[float] = []
        held = peak(lambda: seconds.append(timed(sides[name], count, device)), device)
        return seconds[0], held

    if Others.asking is not None:
        with no_collection():
            Others.answer(turn)
    counts: dict[str, int] = {}
    times: dict[str, list[float]] = {name: [] for name in sides}
    for name in sides:
        seconds, held = turn(name, 1, peaks is not None)
        if peaks is not None:
            peaks[name] = held
        if seconds >= most and name not in PEOPLE:
            seconds, _ = turn(name, 1)  # the first may have compiled
        if seconds >= most:
            times[name].append(seconds)
            continue
        if seconds < least:  # the first call may have compiled, or filled a cache
            seconds, _ = turn(name, 1)
        counts[name] = max(1, min(1000, round(least / max(seconds, 1e-9))))
    with no_collection():
        for _ in range(repeats):
            for name, count in counts.items():
                times[name].append(turn(name, count)[0])
    return {name: statistics.median(values) for name, values in times.items()}


class Done(Exception):
    """Raised in the other process when a row needs no more turns of it; sent back as a word that it is so."""


class Others:
    """A process with the default memory, which makes the same sides as this one and measures those of PEOPLE.

    It calls the row's own function, whose `medians` there waits for what is asked here.
    """

    beside: Others | None = None  # in the process that asks
    asking: Any = None  # the connection, in the process that is asked

    def __init__(self) -> None:
        self.process: Any = None  # started when it is needed: while it starts, what is measured here would suffer
        self.connection: Any = None
        self.wanted: tuple[Callable[[torch.device], Measured], torch.device] | None = None
        self.begun = False

    def start(self) -> None:
        """Start the process."""
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=Others.serve, args=(theirs, torch.get_num_threads()), daemon=True)
        with untuned():
            self.process.start()
        theirs.close()  # so that its end is noticed

    @contextmanager
    def row(self, measure: Callable[[torch.device], Measured], device: torch.device) -> Iterator[None]:
        """While `measure(device)` runs here, its turns of PEOPLE are there."""
        Others.beside, self.wanted, self.begun = self, (measure, device), False
        try:
            yield
        finally:
            Others.beside = None
            if self.begun:
                with suppress(OSError, EOFError):  # it has ended
                    self.connection.send(None)
                    while not isinstance(self.connection.recv(), Done):  # an answer nobody waited for
                        pass

    def turn(self, name: str, count: int, watched: bool = False) -> tuple[float, float]:
        """Seconds of a call there, and MB if it is watched; what it raises there is raised here."""
        if self.process is None:
            self.start()
        try:
            if not self.begun:
                self.connection.send(self.wanted)
                self.begun = True
            self.connection.send((name, count, watched))
            answer = self.connection.recv()
        except (OSError, EOFError):
            raise RuntimeError(f"the process that measures {name!r} has ended; was there memory left?") from None
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self) -> None:
        """End the process."""
        if self.process is not None:
            self.process.terminate()
            self.process.join()

    @staticmethod
    def serve(connection: Any, threads: int) -> None:
        """What the process does: rows, until the one that asks ends."""
        torch.set_num_threads(threads)
        warnings.simplefilter("ignore")  # the asking process says the same
        Others.asking = connection
        with suppress(EOFError, KeyboardInterrupt):
            while True:
                measure, device = connection.recv()
                torch.manual_seed(0)
                try:
                    measure(device)
                except Done:
                    pass
                except Exception as error:  # in making the sides
                    said = sendable(error)
                    while connection.recv() is not None:
                        connection.send(said)
                connection.send(Done())

    @staticmethod
    def answer(turn: Callable[[str, int, bool], tuple[float, float]]) -> None:
        """Measure what is asked for until nothing is; then Done."""
        while (asked := Others.asking.recv()) is not None:
            try:
                found: object = turn(*asked)
            except Exception as error:
                found = sendable(error)
            Others.asking.send(found)
        raise Done


def sendable(error: Exception) -> RuntimeError:
    """What the asking process raises of an error here: of a type that it can be sent as, with where it was raised."""
    said = RuntimeError(f"{type(error).__name__}: {error}")
    said.add_note("in the process of what people run:\n" + "".join(traceback.format_exception(error)))
    return said


def timed(call: Callable[[], object], count: int, device: torch.device) -> float:
    """Seconds of one call, averaged over `count`; or what the calls say that they took."""
    synchronize(device)
    told: list[float] = []
    begun = time.perf_counter()
    for _ in range(count):
        value = call()
        if isinstance(value, float):
            told.append(value)
        del value  # or the next call would find the memory of this one taken
    synchronize(device)
    return statistics.mean(told) if told else (time.perf_counter() - begun) / count


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
