"""The state of a training: what it needs, how far it is, and how that is saved and restored, to the bit on a CPU."""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from torch.optim import Optimizer
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform

from graphcl.checkpoint import (
    CheckpointError,
    fill,
    list_checkpoints,
    load_checkpoint,
    make_folder,
    remove_leftovers,
    save_checkpoint,
)
from graphcl.config import Config
from graphcl.methods.method import Method
from graphcl.runlog import Metrics, NonFiniteLoss

if TYPE_CHECKING:
    from graphcl.data.loaders import Loader
    from graphcl.data.splits import Split
    from graphcl.data.store import GraphStore

FORMAT = 1  # of the training state in a checkpoint
LOOKED_AT = 2**20  # values of a long array that a checksum reads
# Between a checkpoint and its resumption. lr and clip are the ways out of a loss that was not finite.
MAY_CHANGE = ("name", "run.", "evaluate.", "train.epochs", "train.max_steps", "train.lr", "train.clip")


@dataclass
class Run:
    """What a training needs; `graphcl.builder` makes it from a config."""

    config: Config
    data: Data | GraphStore
    split: list[Split]
    method: Method
    loader: Loader


@dataclass
class Place:
    """How far a run is: optimizer steps and epochs done, batches done of the epoch under way, seconds of training."""

    step: int = 0
    epoch: int = 0
    batch: int = 0
    seconds: float = 0.0  # checkpoints of earlier versions do not have it


def open_folder(folder: Path, resume: bool, fabric: Fabric) -> dict[str, Any] | None:
    """Make the run folder ready. Returns the state to go on from, None for a run that starts."""
    checkpoints = folder / "checkpoints"
    if resume and not folder.is_dir():
        raise CheckpointError(f"nothing to resume: there is no folder {folder}; start without --resume")
    found = list_checkpoints(checkpoints)
    if found and not resume:
        raise CheckpointError(
            f"{folder} holds a run already ({found[-1].name}); go on with --resume, or choose another with run.dir=..."
        )
    state = None
    if found:
        state = load_checkpoint(checkpoints)[1]
    elif resume:
        warnings.warn(f"{folder} has no checkpoint yet; starting from the beginning", stacklevel=3)
    fabric.barrier()
    if fabric.is_global_zero:
        make_folder(checkpoints)
        remove_leftovers(checkpoints)
        if state is None:
            (folder / "metrics.jsonl").unlink(missing_ok=True)
    fabric.barrier()
    return state


def save(
    folder: Path, run: Run, place: Place, optimizers: Mapping[str, Optimizer], log: Metrics, fabric: Fabric
) -> None:
    """Write a checkpoint, after it is certain that nothing in it is nan."""
    log.flush()
    check_weights(run.method, place.step, log)
    own: dict[str, Any] = {"cpu": torch.get_rng_state()}
    own["views"] = [generator.get_state() for generator in generators(run.method)]
    if fabric.device.type == "cuda":
        own["cuda"] = torch.cuda.get_rng_state(fabric.device)
    rng: list[Any] = [own]
    if fabric.world_size > 1:
        rng = [None] * fabric.world_size
        dist.all_gather_object(rng, own)
    if not fabric.is_global_zero:
        return
    state = {
        "format": FORMAT,
        "config": run.config.model_dump(mode="json"),
        "batches": len(run.loader),
        "data": counts(run.data),
        "contents": contents(run.data),
        "place": asdict(place),
        "method": run.method.state_dict(),
        "optimizers": {name: optimizer.state_dict() for name, optimizer in optimizers.items()},
        "scaler": fabric.strategy.precision.state_dict(),
        "metrics": log.state(),
        "rng": rng,
    }
    log.checkpoint = save_checkpoint(folder / "checkpoints", place.step, state, run.config.run.keep)


def check_state(state: Mapping[str, Any], run: Run, world: int, total: int) -> None:
    """Refuse to go on where the result would be another than that of one run."""
    if state.get("format") != FORMAT:
        raise CheckpointError("the checkpoint is of another version of graphcl; start the run anew, without --resume")
    before, now = flat(state["config"]), flat(run.config.model_dump(mode="json"))
    changed = [
        f"{key} was {before.get(key)!r} and is now {now.get(key)!r}"
        for key in dict.fromkeys([*before, *now])
        if before.get(key) != now.get(key) and not key.startswith(MAY_CHANGE)
    ]
    if changed:
        raise CheckpointError(
            f"cannot resume, the config has changed: {'; '.join(changed)}. Put it back, or start another run "
            "with run.dir=..."
        )
    then, data = state.get("data"), counts(run.data)  # checkpoints of earlier versions do not have it
    if then is not None and then != data:
        raise CheckpointError(
            f"cannot resume, the data has changed: {said(then)} then, {said(data)} now. Put it back as it was, or "
            "start another run with run.dir=..."
        )
    if state.get("contents") not in (None, contents(run.data)):
        raise CheckpointError(
            f"cannot resume, the data has changed: {said(data)} as before, but other ones, or in another order. Put it "
            "back as it was, or start another run with run.dir=..."
        )
    if state["batches"] != len(run.loader):
        raise CheckpointError(
            f"cannot resume, the data has changed: {state['batches']} batches an epoch then, {len(run.loader)} now"
        )
    if len(state["rng"]) != world:
        raise CheckpointError(f"cannot resume with {world} processes what ran with {len(state['rng'])}; start as many")
    if state["place"]["step"] > total:
        longer = "train.max_steps" if run.config.train.max_steps == total else "train.epochs"
        raise CheckpointError(
            f"the checkpoint is at step {state['place']['step']}, the config ends at step {total}; raise {longer}"
        )


def counts(data: Data | GraphStore) -> dict[str, int]:
    """Nodes and edges of the data, and graphs if it is many: what a run that goes on must find again."""
    sizes = {"nodes": int(data.num_nodes or 0), "edges": data.num_edges}
    return sizes if isinstance(data, Data) else {"graphs": len(data)} | sizes


def contents(data: Data | GraphStore) -> int:
    """A checksum of the sizes of all graphs, and of integer features and edges, of long arrays every n-th value.

    Fast for a store that is larger than memory. Float features are left out: computed on another machine, they may
    differ in their last bits.
    """
    if isinstance(data, Data):
        arrays = [data.x, data.edge_index, data.edge_attr]
    else:
        arrays = [data.node_ptr, data.edge_ptr, data.x, data.src, data.dst, data.edge_attr]
    checksum = 0
    for array in arrays:
        if array is not None and not array.is_floating_point() and array.layout == torch.strided:
            flat = array.detach().reshape(-1)
            flat = flat[:: -(-len(flat) // LOOKED_AT) or 1].to("cpu", torch.int64)
            checksum = zlib.crc32(flat.contiguous().numpy(), checksum)
    return checksum


def said(sizes: Mapping[str, int]) -> str:
    """`99 graphs, 1,234 nodes, 5,000 edges`."""
    return ", ".join(f"{count:,} {name}" for name, count in sizes.items())


def restore(
    state: Mapping[str, Any], method: Method, optimizers: Mapping[str, Optimizer], log: Metrics, fabric: Fabric
) -> Place:
    """Put everything back as it was when the checkpoint was written."""
    fill(method, state["method"], "the checkpoint")
    for name, optimizer in optimizers.items():
        optimizer.load_state_dict(state["optimizers"][name])
    fabric.strategy.precision.load_state_dict(state["scaler"])
    log.load(state["metrics"])
    rng = state["rng"][fabric.global_rank]
    torch.set_rng_state(rng["cpu"])
    if fabric.device.type == "cuda" and "cuda" in rng:
        torch.cuda.set_rng_state(rng["cuda"], fabric.device)
    for generator, drawn in zip(generators(method), rng.get("views", []), strict=False):  # none in earlier versions
        generator.set_state(drawn)
    return Place(**state["place"])


def generators(value: Any) -> list[torch.Generator]:
    """The generators of a method's views, which are not torch's own, in the order in which it has them."""
    if isinstance(value, torch.Generator):
        return [value]
    if isinstance(value, Method | BaseTransform):
        value = list(vars(value).values())
    return [generator for part in value for generator in generators(part)] if isinstance(value, list | tuple) else []


def check_weights(method: Method, step: int, log: Metrics) -> None:
    """A gradient can be nan where the loss was not; the weights are then, before any loss shows it."""
    buffers = dict(method.named_buffers())
    values = dict(method.named_parameters()) | buffers
    finite = torch.stack([value.isfinite().all() for value in values.values()])
    if not finite.all():
        name = list(values)[int(finite.int().argmin())]
        kind = "buffer" if name in buffers else "weight"
        raise NonFiniteLoss(
            f"{kind} {name} is nan or infinite after step {step}, though the loss was not. {log.last_good()} "
            "Usual ways out: lower train.lr, set train.clip=1, look for a square root or norm of zero in the loss"
        )


def flat(values: Any, at: str = "") -> dict[str, Any]:
    """{"train.lr": 0.1, "views.0.1.rate": 0.2} of nested mappings and lists."""
    if isinstance(values, Mapping | list) and values:
        pairs = values.items() if isinstance(values, Mapping) else enumerate(values)
        return {key: value for k, v in pairs for key, value in flat(v, f"{at}.{k}" if at else str(k)).items()}
    return {at: values}
