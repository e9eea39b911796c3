"""What this machine can do at most: copying beyond the cache, reading rows at random places, products of matrices."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from measure import medians

from graphcl.process import multiplies_bf16

COPY = 64 * 2**20  # numbers; 256 MB in and 256 MB out, beyond any cache
ROWS, WIDTH, READS, TOGETHER = 170_000, 128, 2_300_000, 2_300  # a table of 87 MB; rows read, as many added up at a time
# Rows x inner x columns: the machine's best, the molecule GIN's MLP, the TU GIN's, a block of the contrast, the queue.
GEMMS = {
    "gemm 2048x2048x2048": (2048, 2048, 2048),
    "gemm 5000x300x600": (5000, 300, 600),
    "gemm 4000x32x32": (4000, 32, 32),
    "gemm 512x128x8192": (512, 128, 8192),
    "gemm 256x128x65536": (256, 128, 65536),
}


def limits(device: torch.device, names: list[str] | None = None, repeats: int = 3) -> dict[str, float]:
    """Bytes a second ("copy", read and written; "rows", read), operations a second ("gemm ..."), of those asked for."""
    calls, work = {}, {}
    bf16 = ["bf16 gemm 2048x2048x2048"] * (device.type != "cpu" or multiplies_bf16())  # emulated it takes minutes
    for name in names or ["copy", "rows", *bf16, *GEMMS]:
        if name == "copy":
            source = torch.ones(COPY, device=device)
            target = torch.empty_like(source)
            calls[name] = lambda source=source, target=target: target.copy_(source)
            work[name] = 2.0 * source.numel() * source.element_size()
        elif name == "rows":
            table = torch.ones(ROWS, WIDTH, device=device)
            places = torch.randint(ROWS, (READS,), device=device, dtype=torch.int32)
            starts = torch.arange(0, READS, TOGETHER, device=device, dtype=torch.int32)
            calls[name] = lambda at=places, bags=starts, table=table: F.embedding_bag(at, table, bags, mode="sum")
            work[name] = 4.0 * READS * WIDTH
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
