"""Embeddings of a whole data set, in its own order."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from graphcl.data.loaders import Loader
from graphcl.data.store import GraphStore
from graphcl.methods.method import Method


def embed(
    method: Method,
    source: Data | GraphStore | Sequence[Data],
    *,
    batch_size: int = 512,
    device: torch.device | str | None = None,
) -> Tensor:
    """Embeddings on the CPU in float32: one row a graph, or a node, in the order of the source.

    In eval mode and without gradients; each module's mode is restored afterwards.  source: one graph (PyG Data, one
    batch), or many (GraphStore or a list of Data), `batch_size` at a time.  device: where to compute, and the method is
    moved there for the time; default: where it is.

    Raises ValueError naming the first row that is not finite.
    """
    if not isinstance(source, Data | GraphStore):
        source = GraphStore.from_graphs(source)
    home = _device(method)
    device = home if device is None else torch.device(device)
    loader = Loader(source, None if isinstance(source, Data) else batch_size, shuffle=False, device=device)
    modes = [(module, module.training) for module in method.modules()]
    try:
        method.to(device).eval()
        with torch.no_grad():
            z = torch.cat([method.encode(data).float().cpu() for data in loader.in_order()])
    finally:
        method.to(home)
        for module, training in modes:
            module.training = training
    bad = (~z.isfinite()).any(dim=1).nonzero()[:, 0]
    if len(bad):
        raise ValueError(
            f"{len(bad)} of {len(z)} embeddings are not finite, first row {int(bad[0])}; look for NaN or infinity in "
            "its features, or lower the learning rate and train again"
        )
    return z


def _device(module: nn.Module) -> torch.device:
    tensors = (*module.parameters(), *module.buffers())
    return tensors[0].device if tensors else torch.device("cpu")
