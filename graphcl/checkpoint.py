"""What a run leaves on disk: training checkpoints that survive a kill or a full disk, and the weights alone.

A file appears whole or not at all: it is written beside its place under a temporary name, synced, then renamed. What is
read back is checked first, and nothing in it is run (`weights_only=True`, safetensors).
"""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

PATTERN = "step-*.ckpt"


class CheckpointError(ValueError):
    """A run folder, checkpoint or weights file that cannot be written or used; the message names it and the way out."""


# --- writing ----------------------------------------------------------------------------------------------------------


def make_folder(folder: Path) -> None:
    """Make the folder and see that it can be written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe-{os.getpid()}.tmp"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise CheckpointError(
            f"cannot write to the run folder {folder}: {error.strerror}; "
            "choose another (run.dir=... for a run, --output for a model)"
        ) from None


def write_whole(path: Path, payload: bytes | memoryview) -> None:
    """Write a file so that it is there whole or not at all, even if the process or the machine dies meanwhile."""
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        if os.name == "posix":  # the new name is lasting only once its folder is synced; Windows cannot open one
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise CheckpointError(
            f"{path} could not be written: {error.strerror}; what was saved before is intact. "
            "Make room (or lower run.keep, or choose another place with run.dir=...) and go on with --resume"
        ) from None


def save_checkpoint(folder: Path, step: int, state: Mapping[str, Any], keep: int) -> Path:
    """Write `state` (tensors and plain values) as the checkpoint of `step`; afterwards the `keep` newest remain.

    Checkpoints of later steps are removed too: the run was taken up again before them.
    """
    buffer = io.BytesIO()  # torch writes into memory, so that a full disk is a plain OSError with nothing half done
    torch.save(dict(state), buffer)
    path = folder / f"step-{step:08d}.ckpt"
    write_whole(path, buffer.getbuffer())
    present = list_checkpoints(folder)
    for other in present[: max(present.index(path) + 1 - keep, 0)] + present[present.index(path) + 1 :]:
        other.unlink(missing_ok=True)
    return path


def list_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a folder, oldest first."""
    return sorted(folder.glob(PATTERN))


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed run had half written."""
    for path in folder.glob("*.tmp"):
        path.unlink(missing_ok=True)


# --- reading ----------------------------------------------------------------------------------------------------------


def load_checkpoint(folder: Path) -> tuple[Path, dict[str, Any]]:
    """Path and state of the newest checkpoint that reads; warns about each newer one that does not.

    Raises CheckpointError where there is none.
    """
    found = list_checkpoints(folder)
    problems = []
    for path in reversed(found):
        try:
            state = read_state(path)
        except Exception as error:  # a damaged file can raise nearly anything, whatever it is the one before is next
            problems.append(f"{path.name}: {reason(error)}")
            continue
        if problems:
            warnings.warn(f"{folder}: passed over {'; '.join(problems)}. Going on from {path.name}", stacklevel=2)
        return path, state
    if problems:
        raise CheckpointError(
            f"{folder}: no checkpoint can be read: {'; '.join(problems)}; start the run without --resume"
        )
    raise CheckpointError(
        f"no checkpoint in {folder}; give the folder of a run (run.dir=...), or start without --resume"
    )


def read_state(path: Path) -> dict[str, Any]:
    """Tensors and plain values that `torch.save` wrote, in a dict. A damaged file can raise nearly anything."""
    with zipfile.ZipFile(path) as archive:  # torch.load itself does not look at the checksums
        damaged = archive.testzip()
    if damaged is not None:
        raise ValueError("damaged, its checksum does not match")
    state = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(state, dict):
        raise ValueError("not a checkpoint of graphcl")
    return state


def reason(error: Exception) -> str:
    """Why a state could not be read, in a few words."""
    if isinstance(error, zipfile.BadZipFile | EOFError):
        return "truncated, or no checkpoint at all"
    if isinstance(error, pickle.UnpicklingError):
        return "holds more than tensors and plain values, refused unread"
    return " ".join(str(error).split())[:120]


# --- weights alone ----------------------------------------------------------------------------------------------------


def save_weights(folder: Path | str, method: nn.Module) -> Path:
    """Write the method's parameters and buffers to `folder`/model.safetensors. Returns the path."""
    path = Path(folder) / "model.safetensors"
    # clone: safetensors refuses tensors that share memory (tied weights, views of one buffer)
    tensors = {name: value.detach().cpu().clone().contiguous() for name, value in method.state_dict().items()}
    # one entry only: safetensors writes several in an order of chance, and equal runs shall give equal files
    write_whole(path, safetensors.torch.save(tensors, {"method": type(method).__name__}))
    return path


def saved_shape(path: Path, name: str) -> list[int] | None:
    """Shape of a tensor in a weights file; None if the file or the tensor is not there (`load_weights` says why)."""
    try:
        with safetensors.safe_open(path, "pt") as file:
            return list(file.get_slice(name).get_shape()) if name in file.keys() else None  # noqa: SIM118, not a dict
    except (safetensors.SafetensorError, OSError):
        return None


def load_weights(path: Path | str, method: nn.Module) -> None:
    """Load what `save_weights` wrote into a method of the same config.

    Raises CheckpointError if the file is missing or damaged, or is of another model.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(
            f"no weights at {path}; they are written when a run ends, an unfinished one goes on with --resume"
        )
    try:
        with safetensors.safe_open(path, "pt") as file:
            kind = (file.metadata() or {}).get("method", "")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, not a dict
    except (safetensors.SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} is damaged or not a safetensors file ({error}); train again, or copy it again"
        ) from None
    fill(method, tensors, str(path), kind)


def fill(method: nn.Module, tensors: Mapping[str, Tensor], where: str, kind: str = "") -> None:
    """Load a state dict into the method; says what differs. `kind` is the class that was saved."""
    own = method.state_dict()
    missing, unknown = sorted(own.keys() - tensors.keys()), sorted(tensors.keys() - own.keys())
    if missing or unknown:
        of = f" ({kind})" if kind and kind != type(method).__name__ else ""
        raise CheckpointError(
            f"{where} is of another model{of}: {_some('lacks', missing)}{' and ' if missing and unknown else ''}"
            f"{_some('has the unknown', unknown)}; build {type(method).__name__} from the config it was trained with"
        )
    for name, value in own.items():
        if value.shape != tensors[name].shape:
            raise CheckpointError(
                f"{where}: {name} is {list(tensors[name].shape)}, but this model has {list(value.shape)}; "
                "it was trained with other sizes, or on features of another width"
            )
    method.load_state_dict(tensors)


def _some(verb: str, names: list[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{verb} {', '.join(names[:3])}{more}"
