"""The run folder of `graphcl pretrain`: what may be replaced, a lock while a run trains, and nothing lost by a mistake.

An earlier run is set aside, beside its place under a hidden name, and deleted once the run that replaces it has ended
with a step made; a mistake before that puts it back. What a killed process left, the next one settles.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # on Windows two runs can begin in one folder at once
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"
RUN_FILES = {
    *("config.yaml", "metrics.jsonl", "model.safetensors", "environment.json", "scores.json", LOCK),
    *("curve.png", "embedding.png", "views.png", "rejected.csv", "checkpoints", "tensorboard"),
}  # all that a run folder holds; a folder with anything else in it is never deleted


def check_folder(folder: Path, *, resume: bool, overwrite: bool) -> None:
    """An earlier run is never written over without being told to, and never while it trains; what is no run stays."""
    if resume and overwrite:
        raise ValueError("--resume goes on with the earlier run and --overwrite deletes it; give one of them")
    settle(folder)
    if resume and not (folder / "config.yaml").exists():
        raise ValueError(f"nothing to resume: {folder} holds no run; start it without --resume")
    if (folder / LOCK).exists():
        with locked(folder, folder):
            pass
    if not resume:
        check_files(folder, overwrite)


def check_files(folder: Path, overwrite: bool) -> None:
    """ValueError if the folder holds something else than a run, or one that began, without `overwrite`."""
    if not folder.exists() or (folder.is_dir() and not any(p.is_file() for p in folder.rglob("*") if p.name != LOCK)):
        return
    if not is_run(folder) or not (folder / "config.yaml").exists():
        raise ValueError(f"run folder {folder} holds something else than a run; choose another with run.dir=FOLDER")
    if begun(folder) and not overwrite:
        raise ValueError(
            f"run folder {folder} holds a run already; go on with --resume, delete it with --overwrite, "
            "or choose another with run.dir=FOLDER"
        )


@contextmanager
def training_in(folder: Path, config: str, *, resume: bool, overwrite: bool) -> Iterator[None]:
    """Under it the folder is this process's alone; without `resume` it is new, and has config.yaml.

    Where it ends before a step was made, all is as it was.
    """
    with ExitStack() as held:
        if resume:
            held.enter_context(locked(folder, folder))
            yield
            return
        place, earlier = Path(os.path.realpath(folder)), aside(folder)
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # torchrun's, where another process failed
        held.callback(signal.signal, signal.SIGTERM, before or signal.SIG_DFL)
        replaces = place.is_dir() and any(place.iterdir())
        if replaces:
            held.enter_context(locked(place, folder))
            check_files(folder, overwrite)  # again: it may have changed since
            if Path.cwd().is_relative_to(place):
                raise ValueError(f"run folder {folder} holds the current folder; go to another one, then replace it")
            place.rename(earlier)
        made = [one for one in (place, *place.parents) if not one.exists()]
        place.mkdir(parents=True, exist_ok=True)
        held.enter_context(locked(place, folder))
        try:
            (place / "config.yaml").write_text(config, encoding="utf-8")
            yield
        finally:
            if not begun(place):
                clear(place)
                for one in made:
                    with suppress(OSError):  # somebody put a file there, which stays
                        one.rmdir()
                if replaces:
                    earlier.rename(place)
            elif replaces:
                shutil.rmtree(earlier, ignore_errors=True)


def settle(folder: Path) -> None:
    """What a killed process set aside is put back, or deleted if its own run began."""
    earlier = aside(folder)
    if not earlier.is_dir() or not is_run(earlier) or (folder.exists() and not is_run(folder)):
        return
    with locked(earlier, folder):  # held by the process that set it aside, as long as it lives
        if begun(folder):
            shutil.rmtree(earlier)
            return
        if folder.exists():
            clear(folder)
            Path(os.path.realpath(folder)).rmdir()
        earlier.rename(os.path.realpath(folder))


def aside(folder: Path) -> Path:
    """Where an earlier run waits."""
    place = Path(os.path.realpath(folder))
    return place.parent / f".{place.name}.earlier"


def is_run(folder: Path) -> bool:
    """Whether nothing but files of runs is there."""
    return folder.is_dir() and {path.name.removesuffix(".tmp") for path in folder.iterdir()} <= RUN_FILES


def begun(folder: Path) -> bool:
    """Whether a step was made: what is written before it does not count."""
    inside = [(path, path.relative_to(folder).parts[0]) for path in folder.rglob("*")]
    return any(
        path.is_file() and path.stat().st_size for path, name in inside if name not in {"config.yaml", "tensorboard"}
    )


def clear(folder: Path) -> None:
    """Take the files of a run out of the folder."""
    for path in folder.iterdir():
        if path.name.removesuffix(".tmp") in RUN_FILES:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


@contextmanager
def locked(folder: Path, said: Path) -> Iterator[None]:
    """Under it no other process trains in the folder; ValueError, which names it `said`, if one does."""
    if fcntl is None:
        yield
        return
    lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        with suppress(OSError):  # a file system without locks
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ValueError(
                    f"another process trains in run folder {said}; wait until it ends, "
                    "or choose another with run.dir=FOLDER"
                ) from None
        yield
    finally:
        with suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_UN)  # also of processes forked meanwhile
        os.close(lock)
