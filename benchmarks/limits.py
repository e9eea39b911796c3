"""What this machine can do at most: copying out of the cache, and products of matrices in the shapes that are used."""

from __future__ import annotations

import torch
from measure import medians

COPY = 64 * 2**20  # numbers; 256 MB in and 256 MB out, beyond any cache
# Rows x inner x columns: the machine's best, the molecule GIN's MLP, the TU GIN's, a block of the contrast, the queue.
GEMMS = {
    "gemm 2048x2048x2048": (2048, 2048, 2048),
    "gemm 5000x300x600": (5000, 300, 600),
    "gemm 4000x32x32": (4000, 32, 32),
    "gemm 512x128x8192": (512, 128, 8192),
    "gemm 256x128x65536": (256, 128, 65536),
}


def limits(device: torch.device, names: list[str] | None = None, repeats: int = 5) -> dict[str, float]:
    """Bytes per second ("copy", read and written) and operations per second ("gemm ..."), of those asked for."""
    calls, work = {}, {}
    for name in names or ["copy", "bf16 gemm 2048x2048x2048", *GEMMS]:
        if name == "copy":
            source = torch.ones(COPY, device=device)
            target = torch.empty_like(source)
            calls[name] = lambda source=source, target=target: target.copy_(source)
            work[name] = 2.0 * source.numel() * source.element_size()
        else:
            rows, inner, columns = GEMMS[name.removeprefix("bf16 ")]
            dtype = torch.bfloat16 if name.startswith("bf16") else torch.float32
            a = torch.randn(rows, inner, device=device).to(dtype)
            b = torch.randn(inner, columns, device=device).to(dtype)
            out = torch.empty(rows, columns, device=device, dtype=dtype)
            calls[name] = lambda a=a, b=b, out=out: torch.mm(a, b, out=out)
            work[name] = 2.0 * rows * inner * columns
    seconds = medians(calls, device, repeats)
    return {name: work[name] / seconds[name] for name in calls}
