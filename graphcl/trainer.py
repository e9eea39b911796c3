"""Pretraining: the loop in order of execution, on Lightning Fabric (device, precision, processes).

An optimizer step takes `train.accumulate` batches (at the end of an epoch what is left of them). In it each player of
`method.groups()` has its turn: losses, backward, clip, step; then comes `method.after_step`. A resumed run does what
the one that was cut would have done, to the bit (on a CPU). `torchrun` starts several processes.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch_geometric.data import Data

from graphcl.checkpoint import save_weights
from graphcl.config import TrainConfig, near
from graphcl.distributed import close_at_exit
from graphcl.methods.method import Method
from graphcl.process import warn_of_slow_bf16
from graphcl.runlog import Metrics, Progress, StopSignal, write_environment
from graphcl.state import Place, Run, check_state, check_weights, open_folder, restore, save


class Stopped(KeyboardInterrupt):
    """Ctrl-C: the step under way was finished and a checkpoint written, so that resuming goes on from there."""

    def __init__(self, step: int) -> None:
        super().__init__(f"stopped at step {step}; go on with --resume")
        self.step = step


def fit(run: Run, folder: Path | str | None = None, *, resume: bool = False, progress: bool = True) -> dict[str, float]:
    """Train `run.method` in place.

    folder: where metrics.jsonl, checkpoints/, model.safetensors and environment.json go; none: nothing is written.
    resume: go on from the newest checkpoint there; of the config only what MAY_CHANGE lists may have changed.
    Returns steps, epochs and the last loss, and for this call seconds, items (graphs, or nodes of one graph) per second
    and the peak memory in MB. Raises NonFiniteLoss, CheckpointError, Stopped (Ctrl-C, with a folder; without one it is
    an ordinary KeyboardInterrupt), and ValueError where the config does not fit the machine or the method.
    """
    train, settings, method, loader = run.config.train, run.config.run, run.method, run.loader
    folder = None if folder is None else Path(folder)
    fabric = start_fabric(train)
    torch.manual_seed(train.seed + fabric.global_rank)

    players = players_of(method, train)
    fused = train.precision != "16-mixed"  # clipping under the fp16 scaler refuses fused optimizers
    optimizers = {name: make_optimizer(own, train, fused) for name, own in players.items()}
    model, *steppers = fabric.setup(method, *optimizers.values())
    model.mark_forward_method("loss")

    length = len(loader)
    if length == 0:
        raise ValueError("the loader has no batches: the data set is empty, or there are more processes than batches")
    total = min(train.epochs * math.ceil(length / train.accumulate), train.max_steps or sys.maxsize)

    place, state = Place(), None
    if resume and folder is None:
        raise ValueError("resume=True goes on from the checkpoints of a folder; give fit the run's folder")
    if folder is not None:
        state = open_folder(folder, resume, fabric)
    log = Metrics(fabric, folder, settings.tensorboard)
    if state is not None:
        check_state(state, run, fabric.world_size, total)
        place = restore(state, method, optimizers, log, fabric)
    needs_means = type(method).after_epoch is not Method.after_epoch  # else the values can wait on the device

    begun, items, before = time.perf_counter(), 0, place.seconds
    unit = "nodes" if isinstance(run.data, Data) else "graphs"
    with (
        closing(log),
        compiled(method, train.compile),
        StopSignal(active=folder is not None) as signal,
        Progress(progress and fabric.is_global_zero, total, place.step, unit) as bar,
    ):
        while place.step < total:
            if place.batch == 0:
                method.before_epoch(on(fabric.device, loader.in_order()), place.epoch)
            method.train()
            for batches in chunks(on(fabric.device, loader.epoch(place.epoch, start=place.batch)), train.accumulate):
                head: dict[str, float] = {"step": place.step + 1, "epoch": place.epoch + 1}
                parts: dict[str, Tensor] = {}
                scale = lr_scale(place.step, total, train)
                for (name, own), optimizer in zip(players.items(), steppers, strict=True):
                    for group in optimizer.param_groups:
                        group["lr"] = scale * train.group_lr.get(name, train.lr)
                    with only(own, method):
                        values = take_turn(fabric, model, optimizer, batches, name, train.clip)
                    head.setdefault("lr", optimizer.param_groups[0]["lr"])
                    parts.setdefault("loss", values["loss"])  # the first player's
                    parts |= {f"{name}.{key}": value for key, value in values.items()} if len(players) > 1 else values
                log.add(head, parts, place.batch, batches)

                place.step, place.batch = place.step + 1, place.batch + len(batches)
                place.seconds = before + time.perf_counter() - begun
                method.after_step(place.step / total)
                if ended := place.batch >= length:
                    place.epoch, place.batch = place.epoch + 1, 0
                    if needs_means:
                        log.flush()
                        method.after_epoch(log.means())

                if together := place.step % settings.log_every == 0:
                    log.flush()
                stop = asked(signal, fabric, together)
                if folder is not None and (stop or place.step == total or place.step % settings.checkpoint_every == 0):
                    save(folder, run, place, optimizers, log, fabric)
                if stop:
                    raise Stopped(place.step)
                count = fabric.world_size * sum(map(size, batches))
                items += count
                bar.advance(place.step, place.epoch + (not ended), count, log.loss)
                if ended or place.step == total:
                    break
            assert place.batch == 0 or place.step == total, "the loader gave fewer batches than its length"
        log.flush()
        check_weights(method, place.step, log)

    seconds = time.perf_counter() - begun
    summary = {
        "steps": place.step,
        "epochs": place.epoch,
        "loss": log.loss,
        "seconds": seconds,
        "items_per_second": items / seconds,
        "peak_memory_mb": peak_memory(fabric.device),
    }
    if folder is not None and fabric.is_global_zero:
        save_weights(folder, method)
        setting: dict[str, Any] = {"seed": train.seed, "precision": train.precision, "processes": fabric.world_size}
        setting["num_features"] = run.data.num_features  # so that the encoder can be made without the data
        setting["level"] = "node" if isinstance(run.data, Data) else "graph"  # and whether with its readout
        whole = summary | {"seconds": before + seconds}  # of all calls
        write_environment(folder, device=str(fabric.device), **setting, **whole)
    fabric.barrier()
    return summary


# --- setting up -------------------------------------------------------------------------------------------------------


def start_fabric(train: TrainConfig) -> Fabric:
    """Fabric for the device and precision asked for, over all processes that torchrun started."""
    device = ("cuda" if torch.cuda.is_available() else "cpu") if train.device == "auto" else train.device
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("train.device=cuda, but torch finds no CUDA device here; use train.device=auto or cpu")
    if device == "cpu" and train.precision == "16-mixed":  # Fabric would take bf16 without a word
        raise ValueError("train.precision=16-mixed needs a CUDA device; on a CPU use bf16-mixed or 32")
    warn_of_slow_bf16(train.precision, device)
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        fabric = Fabric(accelerator=device, devices=1, precision=train.precision)
    else:
        local = int(os.environ.get("LOCAL_WORLD_SIZE", world))
        # unused parameters: players whose turn it is not, and branches that a method skips in some passes
        strategy = DDPStrategy(find_unused_parameters=True)
        fabric = Fabric(
            accelerator=device, strategy=strategy, devices=local, num_nodes=world // local, precision=train.precision
        )
    fabric.launch()
    if world > 1:
        close_at_exit()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats(fabric.device)
    return fabric


def players_of(method: Method, train: TrainConfig) -> dict[str, list[nn.Parameter]]:
    """The trainable parameters of each player."""
    players = {name: [p for p in own if p.requires_grad] for name, own in method.groups().items()}
    for name, own in players.items():
        if not own:
            raise ValueError(f"group {name!r} of {type(method).__name__} has no parameter that requires a gradient")
    for name in train.group_lr:
        if name not in players:
            known = near(name, players) or f"; {type(method).__name__} has: {', '.join(players)}"
            raise ValueError(f"train.group_lr: unknown group {name!r}{known}")
    return players


def make_optimizer(parameters: Sequence[nn.Parameter], train: TrainConfig, fused: bool) -> Optimizer:
    """Adam, AdamW, or SGD with momentum 0.9."""
    if train.optimizer == "sgd":
        return SGD(parameters, lr=train.lr, momentum=0.9, weight_decay=train.weight_decay, fused=fused)
    kind = Adam if train.optimizer == "adam" else AdamW
    return kind(parameters, lr=train.lr, weight_decay=train.weight_decay, fused=fused)


@contextmanager
def compiled(method: Method, active: bool) -> Iterator[None]:
    """Under it the parts of the method that hold weights (encoders, projectors) are compiled whole, if `active`.

    Views are left as they are: how many nodes they keep depends on the data, which would break the graph.
    """
    parts = [part for part in method.children() if active and any(True for _ in part.parameters())]
    for part in parts:
        vars(part)["forward"] = torch.compile(_inlined(part.forward), fullgraph=True, dynamic=True)
    try:
        yield
    finally:
        for part in parts:
            del vars(part)["forward"]


def _inlined(forward: Callable[..., Any]) -> Callable[..., Any]:
    # torch.compile passes over functions of torch.nn itself (a Sequential's), but not over what they are called in.
    return lambda *args: forward(*args)


# --- one step ---------------------------------------------------------------------------------------------------------


def take_turn(
    fabric: Fabric, model: Any, optimizer: Any, batches: Sequence[Any], name: str, clip: float | None
) -> dict[str, Tensor]:
    """One player's step over the mean loss of the batches. Returns the mean of each value, on the device."""
    optimizer.zero_grad()
    means: dict[str, Tensor] = {}
    for i, batch in enumerate(batches):
        with fabric.no_backward_sync(model, enabled=i + 1 < len(batches)):
            with fabric.autocast():  # on one device Fabric sends only `forward` through its precision, not `loss`
                values = model.loss(batch, name)
            if not isinstance(values, dict) or "loss" not in values:
                raise ValueError(f"loss() must return a dict with the key 'loss', got {values!r:.80}")
            fabric.backward(values["loss"] / len(batches))
        for key, value in values.items():
            share = torch.as_tensor(value, dtype=torch.float32, device=fabric.device).detach() / len(batches)
            means[key] = means[key] + share if key in means else share
    if clip is not None:
        fabric.clip_gradients(model, optimizer, max_norm=clip, error_if_nonfinite=False)
    optimizer.step()
    return means


@contextmanager
def only(own: Sequence[nn.Parameter], method: Method) -> Iterator[None]:
    """Under it no parameter but one's own collects a gradient."""
    mine = {id(parameter) for parameter in own}
    others = [p for p in method.parameters() if p.requires_grad and id(p) not in mine]
    for parameter in others:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in others:
            parameter.requires_grad_(True)


def lr_scale(done: int, total: int, train: TrainConfig) -> float:
    """Share of the learning rate after `done` steps: linear over the warm-up, then constant or a half cosine."""
    if done < train.warmup:
        return (done + 1) / train.warmup
    if train.schedule == "constant":
        return 1.0
    return (1 + math.cos(math.pi * (done - train.warmup) / (total - train.warmup))) / 2


def chunks(batches: Iterable[Any], count: int) -> Iterator[list[Any]]:
    """Lists of `count` batches, the last one maybe shorter."""
    batches = iter(batches)
    while chunk := list(islice(batches, count)):
        yield chunk


def on(device: torch.device, batches: Iterable[Any]) -> Iterator[Any]:
    """The batches, each on the device."""
    return (batch.to(device) for batch in batches)


def size(batch: Any) -> int:
    """Graphs of a batch, or nodes of a single graph, or rows of a tensor."""
    if isinstance(batch, Data):
        return getattr(batch, "num_graphs", None) or batch.num_nodes or 0
    return len(batch)


def asked(signal: StopSignal, fabric: Fabric, together: bool) -> bool:
    """Whether to stop now. Several processes must stop at the same step, so they compare notes when they log."""
    if fabric.world_size == 1:
        return signal.asked
    if not together:
        return False
    count = fabric.all_reduce(torch.tensor(float(signal.asked), device=fabric.device), reduce_op="sum")
    return bool(count)


# --- after it ---------------------------------------------------------------------------------------------------------


def peak_memory(device: torch.device) -> float:
    """Most memory held so far, in MB: on the GPU by torch, else by this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        import resource
    except ImportError:  # Windows
        return math.nan
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
