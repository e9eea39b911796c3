"""Finished trainings of a fine-tuning, kept in a folder: a run that was stopped goes on with those that are missing.

A training is a file, named by a hash of all that it depends on, so that one of other data or settings is never taken.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from graphcl.checkpoint import CheckpointError, make_folder, read_state, reason, write_whole
from graphcl.evaluate.finetune import Model, Trained
from graphcl.evaluate.tasks import Judged


def key_of(*parts: Any) -> str:
    """A hash of tensors, texts and numbers."""
    found = hashlib.sha256()
    for part in parts:
        if isinstance(part, Tensor):
            found.update(f"{part.dtype} {tuple(part.shape)} ".encode())
            found.update(part.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        else:
            found.update(f"{part!r} ".encode())
    return found.hexdigest()[:16]


def check_there(folder: Path, keys: set[str]) -> None:
    """ValueError if there are trainings in the folder, and none of them has one of the keys."""
    there = {path.stem for path in folder.glob("*.pt")}
    if there and not there & keys:
        raise ValueError(
            f"the trainings in {folder} are of other options, data, versions or threads; give --resume with those that "
            "they were begun with, or begin anew with --overwrite"
        )


def keep(folder: Path, key: str, trained: Trained, seconds: float) -> None:
    """Write a training that has ended; only a warning where that cannot be done."""
    state = {
        "epochs": [list(one) for one in trained.epochs],
        "best": trained.best,
        "model": trained.model.state_dict(),
        "scores": [list(trained.last_scores), list(trained.best_scores)],
        "outputs": [trained.last_out, trained.best_out],
        "seconds": seconds,
    }
    written = io.BytesIO()
    torch.save(state, written)
    try:
        make_folder(folder)
        write_whole(folder / f"{key}.pt", written.getbuffer())
    except CheckpointError as error:
        said = str(error).partition(";")[0]
        warnings.warn(f"{said}; if this run is stopped, that training is lost", stacklevel=2)


def kept(folder: Path, key: str, make: Callable[[], Model], device: torch.device) -> tuple[Trained, float] | None:
    """The training of that key and its seconds; None where there is none, with a warning if it cannot be read."""
    path = folder / f"{key}.pt"
    if not path.is_file():
        return None
    try:
        state = read_state(path)
        with torch.random.fork_rng([]):
            model = make()
        model.load_state_dict(state["model"])
        epochs = [Judged(*one) for one in state["epochs"]]
        last, best = (Judged(*one) for one in state["scores"])
        last_out, best_out = (out.to(device) for out in state["outputs"])
        found = Trained(epochs, state["best"], model.to(device).eval(), last, best, last_out, best_out)
        return found, float(state["seconds"])
    except Exception as error:  # a damaged file can raise nearly anything
        warnings.warn(f"{path} is not used, that training begins anew: {reason(error)}", stacklevel=2)
        return None
