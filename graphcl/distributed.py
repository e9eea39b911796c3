"""Rows of all processes, with gradient, so that every process contrasts against the whole batch.

The loss of each process is the mean over its own rows, without a further factor: the backward pass of `gather` adds up
the processes, DDP divides by their number, and the result is the gradient of one process that has all rows. With
unequal numbers of rows the gathered rows are right, but DDP's mean weighs every process alike, not every row.
"""

from __future__ import annotations

import atexit
import gc
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

# torch 2.13 renamed the two, and its older names warn. A torch built without distributed has neither, and needs none.
_all_gather: Any = getattr(dist, "all_gather_single", None) or getattr(dist, "all_gather_into_tensor", None)
_reduce_scatter: Any = getattr(dist, "reduce_scatter_single", None) or getattr(dist, "reduce_scatter_tensor", None)


def gather(x: Tensor) -> tuple[Tensor, int]:
    """Rows of all processes in the order of their ranks, with gradient, and the place of one's own first row.

    x: [n, ...]; n may differ between processes, the rest may not. Every process must call. One process: (x, 0).
    """
    if not _several():
        return x, 0
    counts = _counts(x)
    rank = dist.get_rank()
    rows: Tensor = _Gather.apply(x, counts, rank)
    return rows, sum(counts[:rank])


def gather_views(z1: Tensor, z2: Tensor) -> dict[str, Any]:
    """The candidates of all processes, as in `infonce(z1, z2, tau, **gather_views(z1, z2))`. One process: nothing.

    z1, z2: [n, D]. Returns keys1 and keys2 [M, D] and target [n], one's own rows among them.
    """
    if not _several():
        return {}
    both, offset = gather(torch.stack([z1, z2], 1))  # [M, 2, D], one collective for both
    return {"keys1": both[:, 0], "keys2": both[:, 1], "target": torch.arange(len(z1), device=z1.device) + offset}


def gather_ids(ids: Tensor) -> Tensor:
    """Ids [n] of all processes in the order of their ranks, as `gather` orders the rows that they belong to."""
    return gather(ids)[0]


def close_at_exit() -> None:
    """Let this process leave its group when it ends. Fabric does so under NCCL alone; gloo's threads abort without."""
    atexit.unregister(_close)  # once, however many runs there are
    atexit.register(_close)


def _close() -> None:
    gc.collect()  # a method wrapped by DDP, which holds the group, may wait in a cycle
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def _several() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def _counts(x: Tensor) -> list[int]:
    """How many rows each process has. Waits for the device: the sizes of the results depend on it."""
    own = torch.tensor([len(x)], device=x.device)
    counts = torch.empty(dist.get_world_size(), dtype=own.dtype, device=x.device)
    _all_gather(counts, own)
    return counts.tolist()


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, counts: list[int], rank: int) -> Tensor:
        ctx.counts, ctx.rank = counts, rank
        longest = max(counts)
        own = _pad(x, longest).contiguous()
        rows = x.new_empty((len(counts) * longest, *x.shape[1:]))
        _all_gather(rows, own)
        return torch.cat([part[:count] for part, count in zip(torch.split(rows, longest), counts, strict=True)])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        longest = max(ctx.counts)
        rows = torch.cat([_pad(part, longest) for part in torch.split(grad, ctx.counts)])
        own = grad.new_empty((longest, *grad.shape[1:]))
        _reduce_scatter(own, rows)
        return own[: ctx.counts[ctx.rank]], None, None


def _pad(rows: Tensor, length: int) -> Tensor:
    return torch.cat([rows, rows.new_zeros((length - len(rows), *rows.shape[1:]))])
