"""What changes without a gradient: the momentum encoder, MoCo's queue of keys, the memory bank.

Queue and bank live in buffers, so that a checkpoint holds them, and are updated without waiting for the device.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@torch.no_grad()
def ema_update(target: nn.Module, online: nn.Module, momentum: float) -> None:
    """target <- momentum * target + (1 - momentum) * online, in place, for parameters and floating-point buffers.

    Other buffers (BatchNorm's count of batches) are copied. momentum in [0, 1].
    Raises ValueError if the two modules do not have the same parameters and buffers.
    """
    _check_momentum(momentum)
    pairs = [
        *_pairs("parameters", target.named_parameters(), online.named_parameters()),
        *_pairs("buffers", target.named_buffers(), online.named_buffers()),
    ]
    moving = [pair for pair in pairs if pair[0].is_floating_point()]
    if moving:
        torch._foreach_lerp_([old for old, _ in moving], [new for _, new in moving], 1 - momentum)
    for old, new in pairs:
        if not old.is_floating_point():
            old.copy_(new)


def cosine_momentum(progress: float, start: float, end: float = 1.0) -> float:
    """Momentum that goes from `start` to `end` by a half cosine as progress goes from 0 to 1. BYOL, section 3.2."""
    if not 0 <= progress <= 1:
        raise ValueError(f"progress must lie in [0, 1], got {progress!r}; it is the share of the run that is done")
    _check_momentum(start)
    _check_momentum(end)
    return end - (end - start) * (math.cos(math.pi * progress) + 1) / 2


class FeatureQueue(nn.Module):
    """The last `size` keys, a ring. MoCo (He et al., 2020), with the item of every key beside it.

    items: [K, D], rows of length 1. ids: [K], -1 marks an empty slot. pointer: the slot that is written next.
    filled: slots that were written. Empty slots hold zeros and are masked by `valid`, never used as random negatives.
    """

    items: Tensor
    ids: Tensor
    pointer: Tensor
    filled: Tensor

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        _check_size("FeatureQueue", size, dim)
        self.register_buffer("items", torch.zeros(size, dim))
        self.register_buffer("ids", torch.full((size,), -1))
        self.register_buffer("pointer", torch.tensor(0))
        self.register_buffer("filled", torch.tensor(0))

    @property
    def valid(self) -> Tensor:
        """[K] bool: slots that hold a key."""
        return self.ids != -1

    @torch.no_grad()
    def enqueue(self, keys: Tensor, ids: Tensor) -> None:
        """Write keys [B, D] of items ids [B] over the oldest slots; of more than K keys the last K are kept.

        A key with the id -1 is none: it leaves its slot empty.
        With several processes, gather keys and ids first (`graphcl.distributed`), else each keeps a queue of its own.
        """
        size, dim = self.items.shape
        _check_rows("FeatureQueue.enqueue", "keys", keys, ids, dim)
        batch = len(keys)
        keys, ids = keys[-size:], ids[-size:]
        slots = torch.arange(batch - len(keys), batch, device=self.ids.device).add_(self.pointer).remainder_(size)
        rows = F.normalize(keys.float(), dim=-1).masked_fill_((ids == -1)[:, None], 0)
        self.items.index_copy_(0, slots, rows.to(self.items.dtype))
        self.ids.index_copy_(0, slots, ids)
        self.pointer.add_(batch).remainder_(size)
        self.filled.add_(batch).clamp_(max=size)


class MemoryBank(nn.Module):
    """One vector an item, a moving average of its embeddings. InstDisc (Wu et al., 2018).

    items: [n, D], rows of length 1. seen: [n] bool; the rest hold zeros and are masked by `valid`.
    """

    items: Tensor
    seen: Tensor

    def __init__(self, size: int, dim: int, momentum: float = 0.5) -> None:
        super().__init__()
        _check_size("MemoryBank", size, dim)
        _check_momentum(momentum)
        self.momentum = momentum
        self.register_buffer("items", torch.zeros(size, dim))
        self.register_buffer("seen", torch.zeros(size, dtype=torch.bool))

    @property
    def valid(self) -> Tensor:
        """[n] bool: items that have a vector."""
        return self.seen

    @torch.no_grad()
    def update(self, ids: Tensor, z: Tensor) -> None:
        """v <- norm(m v + (1 - m) norm(z)) for items ids [B] with z [B, D]; the first time v <- norm(z).

        Of an item that is given more than once, the last row counts. An id outside 0..n-1 raises torch's IndexError
        (on a GPU its device-side assert, as checking here would wait for the device).
        """
        _check_rows("MemoryBank.update", "z", z, ids, self.items.shape[1])
        if len(ids) == 0:
            return
        # All rows of one item write the same value, so the order in which the device writes them does not matter.
        ordered, order = ids.sort(stable=True)
        last = order[torch.searchsorted(ordered, ids, right=True) - 1]  # [B]
        new = F.normalize(z.float(), dim=-1)[last].to(self.items.dtype)
        mixed = F.normalize(torch.lerp(new, self.items.index_select(0, ids), self.momentum), dim=-1)
        self.items.index_copy_(0, ids, torch.where(self.seen.index_select(0, ids)[:, None], mixed, new))
        self.seen.index_fill_(0, ids, True)


def _pairs(
    kind: str, target: Iterable[tuple[str, Tensor]], online: Iterable[tuple[str, Tensor]]
) -> list[tuple[Tensor, Tensor]]:
    """Tensors of the same name, target's first."""
    old, new = dict(target), dict(online)
    if old.keys() != new.keys():
        odd = ", ".join(sorted(old.keys() ^ new.keys()))
        raise ValueError(
            f"ema_update: only one of the modules has the {kind} {odd}; make the target by copy.deepcopy(online)"
        )
    for name in old:
        if old[name].shape != new[name].shape:
            shapes = f"{tuple(old[name].shape)} in the target, {tuple(new[name].shape)} online"
            raise ValueError(f"ema_update: {name} is {shapes}; make the target by copy.deepcopy(online)")
    return [(old[name], new[name]) for name in old]


def _check_momentum(momentum: float) -> None:
    if not 0 <= momentum <= 1:
        raise ValueError(f"momentum must lie in [0, 1], got {momentum!r}; most papers use 0.99 to 0.999")


def _check_size(what: str, size: int, dim: int) -> None:
    if size < 1 or dim < 1:
        raise ValueError(f"{what} needs size >= 1 and dim >= 1, got size={size!r}, dim={dim!r}")


def _check_rows(where: str, name: str, rows: Tensor, ids: Tensor, dim: int) -> None:
    if rows.dim() != 2 or rows.shape[1] != dim or ids.shape != rows.shape[:1]:
        shapes = f"{name} {tuple(rows.shape)}, ids {tuple(ids.shape)}"
        raise ValueError(f"{where}: {shapes}; they must be [B, {dim}] and [B]")
    if ids.dtype != torch.int64:
        raise ValueError(f"{where}: ids must be int64, got {ids.dtype}")
