"""Temporary folders to build a store in: a build holds a lock on its own, and what dead builds left can be removed."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

try:
    import fcntl
except ImportError:  # on Windows a build that died leaves its folder behind
    fcntl = None  # type: ignore[assignment]

TEMPORARY = ".graphcl-store-"


def locked_folder(parent: Path) -> tuple[Path, int | None]:
    """A new folder beside the place of a store, and its lock; None where there are no locks."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=parent))
        try:
            lock = _lock(folder)
        except OSError:  # a file system without locks: what a killed build leaves there is not cleared away
            return folder, None
        if lock is not None and folder.is_dir():  # else another build took it for a leftover before it was locked
            return folder, lock
        if lock is not None:
            os.close(lock)


def _lock(folder: Path) -> int | None:
    """The folder's lock, which the system frees when the process ends however it ends; None if another holds it.

    OSError where there are no locks.
    """
    if fcntl is None:
        raise OSError("this system has no flock")
    try:
        held = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(held)
        if isinstance(error, BlockingIOError):
            return None
        raise
    return held


def remove_leftovers(parent: Path) -> None:
    """Remove the folders of builds that have died."""
    for folder in parent.glob(f"{TEMPORARY}*"):
        try:
            held = _lock(folder)
        except OSError:
            return
        if held is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(held)


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk."""
    if os.name == "nt":  # folders cannot be opened there
        return
    held = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(held)
    finally:
        os.close(held)


def umask() -> int:
    """The bits that new files of this process do not get."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
