"""Which rows of an embedding stand for what: the nodes that two views share, and the ids of nodes and graphs."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch_geometric.data import Batch, Data

from augment.join import join
from graphcl.methods.method import Encoder


def seeds(h: Tensor, data: Data) -> Tensor:
    """h [N, D]; of a neighbour sample only the seeds, its first `batch_size` nodes, since the rest is context."""
    return h[: data.batch_size] if is_sample(data) else h


def is_sample(data: Data) -> bool:
    """Whether data is a neighbour-sampled piece of a graph. (A Batch has a `batch_size` too, its count of graphs.)"""
    return not isinstance(data, Batch) and "batch_size" in data


def pooled(h: Tensor, data: Data, readout: nn.Module | None) -> Tensor:
    """Graph embeddings [B, D] under a readout; else the node embeddings of the seeds."""
    return readout(h, data) if readout is not None else seeds(h, data)


def both(
    encoder: Encoder, data1: Data, data2: Data, readout: nn.Module | None = None, *, one_pass: bool = False
) -> tuple[Tensor, Tensor]:
    """Embeddings of two views, as `pooled` gives them.

    one_pass: both views go through the encoder side by side, which saves half of the calls where these cost more than
    the arithmetic (small layers). Batch norm then takes its statistics over both views; the papers take each view's.
    """
    if not one_pass:
        return pooled(encoder(data1), data1, readout), pooled(encoder(data2), data2, readout)
    whole = join([data1, data2])
    h = encoder(whole)
    if readout is not None:
        z1, z2 = readout(h, whole).chunk(2)  # a view loses no graph
        return z1, z2
    h1, h2 = h.split([data1.num_nodes, data2.num_nodes])
    return seeds(h1, data1), seeds(h2, data2)


def item_ids(data: Data, readout: nn.Module | None) -> Tensor:
    """Data-set-wide ids of the rows that `pooled` gives: graph_id [B] or n_id [N]. The Loader writes both."""
    name = "n_id" if readout is None else "graph_id"
    if name not in data:
        rows = "one int64 a node" if readout is None else "one int64 a graph"
        raise ValueError(f"the batch has no {name}; take batches from graphcl's Loader, or write your own ({rows})")
    return data.graph_id if readout is not None else seeds(data.n_id, data)


def matched(
    z1: Tensor, data1: Data, z2: Tensor, data2: Data, readout: nn.Module | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Rows of what both views have, in the same order, and their ids [M].

    z1 and z2 are what `pooled` gave. Graphs and seeds are never dropped; of other nodes a view may lack some.
    """
    ids, ids2 = item_ids(data1, readout), item_ids(data2, readout)
    # A view that drops no node keeps the very tensor of ids.
    if readout is not None or is_sample(data1) or data1.n_id is data2.n_id:
        return z1, z2, ids
    ordered, order = ids2.sort()
    rows = torch.isin(ids, ids2).nonzero()[:, 0]  # [M]
    if len(rows) == 0:
        raise ValueError("the two views have no node in common; let them drop fewer nodes")
    ids = ids[rows]
    return z1[rows], z2[order[torch.searchsorted(ordered, ids)]], ids
