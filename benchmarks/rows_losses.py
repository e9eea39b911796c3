"""What `graphcl bench` measures of losses: ours and others' in turns, at sizes of one's choice."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import peers
import torch
import torch.nn.functional as F
from limits import limits
from measure import Measured, in_fresh_process, medians, peak_of_process, timed
from torch import Tensor

from graphcl.objectives import infonce, ntxent, queue_infonce


def real_losses(intraview: bool, tau: float = 0.2) -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    """The losses of PyGCL and graphssl themselves, where they are installed."""
    found: dict[str, Callable[[Tensor, Tensor], Tensor]] = {}
    try:
        from GCL.losses import InfoNCE
        from GCL.models import DualBranchContrast
    except ImportError:
        pass
    else:
        contrast = DualBranchContrast(InfoNCE(tau=tau), mode="L2L", intraview_negs=intraview)
        found["PyGCL"] = lambda z1, z2: contrast(h1=z1, h2=z2)
    if intraview:  # graphssl's only contrastive loss has the negatives inside each view
        try:
            from graphssl.losses.nt_xent import NTXentLoss
        except ImportError:
            pass
        else:
            found["graphssl"] = NTXentLoss(tau)
    return found


def _loss_calls(n: int, d: int, device: torch.device) -> dict[str, Callable[[], object]]:
    z1, z2 = (torch.randn(n, d, device=device, requires_grad=True) for _ in "12")
    losses = {
        "ours": lambda a, b: infonce(a, b, 0.2, form="streamed"),
        "masks": lambda a, b: peers.masks_infonce(a, b, 0.2),
        "dense": lambda a, b: peers.dense_infonce(a, b, 0.2),
        **real_losses(intraview=False),
    }
    return {name: partial(_loss_and_gradient, loss, z1, z2) for name, loss in losses.items()}


def _loss_and_gradient(loss: Callable[[Tensor, Tensor], Tensor], z1: Tensor, z2: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss(z1, z2), (z1, z2))


def infonce_both(device: torch.device, n: int = 8192, d: int = 128) -> Measured:
    """Both directions of InfoNCE between two views, and the gradient: time, and what the allocator gave out at most."""
    peaks: dict[str, float] = {}
    found = medians(_loss_calls(n, d, device), device, repeats=3, peaks=peaks)
    return Measured(found, data=f"N={n:,}, d={d}", work=("gemm 512x128x8192", 6.0 * n * n * d), peaks=peaks)


def ntxent_time(device: torch.device, n: int = 2708, d: int = 256) -> Measured:
    """NT-Xent as GRACE has it, at the size of Cora, and the gradient."""
    z1, z2 = (torch.randn(n, d, device=device, requires_grad=True) for _ in "12")
    losses = {
        "ours": lambda a, b: ntxent(a, b, 0.2),
        "masks": lambda a, b: peers.masks_infonce(a, b, 0.2, intraview=True),
        **real_losses(intraview=True),
    }
    calls = {name: partial(_loss_and_gradient, loss, z1, z2) for name, loss in losses.items()}
    return Measured(medians(calls, device, repeats=3), data=f"N={n:,}, d={d}")


def infonce_full(device: torch.device, n: int = 169_000, d: int = 128) -> Measured:
    """One direction over all nodes of a large graph, once; against the time of its products at the machine's limit."""
    seconds, _, rate = _in_full(device, n, d)
    return Measured({"ours": seconds, "products": 6.0 * n * n * d / rate}, data=f"N={n:,}, d={d}")


def infonce_full_memory(device: torch.device, n: int = 169_000, d: int = 128) -> Measured:
    """What it adds to the peak of its process; against 1 GB."""
    return Measured({"ours": _in_full(device, n, d)[1], "1 GB": 1000.0}, unit="MB", data=f"N={n:,}, d={d}")


@cache
def _in_full(device: torch.device, n: int, d: int) -> tuple[float, float, float]:
    return in_fresh_process(full_graph, str(device), n, d)


def full_graph(device_name: str, n: int, d: int) -> tuple[float, float, float]:
    """Seconds and MB of one direction of InfoNCE with gradient, and the machine's operations per second around it."""
    torch.set_num_threads(1)
    device, shape = torch.device(device_name), "gemm 512x128x8192"
    rate = limits(device, [shape], repeats=15)[shape]
    z1, z2 = (torch.randn(n, d, device=device, requires_grad=True) for _ in "12")
    loss = partial(_loss_and_gradient, lambda a, b: infonce(a, b, 0.2, symmetric=False, form="streamed"))
    loss(z1[:2048], z2[:2048])
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    before = held(device)
    seconds = timed(lambda: loss(z1, z2), 1, device)
    extra = held(device) - before
    return seconds, extra, (rate + limits(device, [shape], repeats=15)[shape]) / 2


def held(device: torch.device) -> float:
    """MB at most: of the allocator on a GPU, else of the process."""
    return torch.cuda.max_memory_allocated(device) / 1e6 if device.type == "cuda" else peak_of_process()


def queue(device: torch.device, count: int = 256, k: int = 65_536, d: int = 128) -> Measured:
    """Loss against a long queue and the gradient to the queries; against its two products alone."""
    q, key, items = (F.normalize(torch.randn(rows, d, device=device)) for rows in (count, count, k))
    q.requires_grad_()
    columns, weights = items.t().contiguous(), torch.rand(count, k, device=device)
    sides = {
        "ours": lambda: torch.autograd.grad(queue_infonce(q, key, items, 0.07, normalized=True), q),
        "gemms": lambda: (torch.mm(q.detach(), items.t()), torch.mm(weights, items)),
        "MoCo": lambda: torch.autograd.grad(peers.moco_loss(q, key, columns, 0.07), q),
    }
    return Measured(medians(sides, device), data=f"K={k:,}, d={d}, batch {count}")
