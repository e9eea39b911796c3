"""torch.compile takes an encoder whole, whatever the sizes: the same values and gradients, and no second graph."""

from __future__ import annotations

import pytest
import torch
from graphs import batch_of, path, ring
from torch import Tensor, nn
from torch_geometric.data import Batch

from graphcl.encoders import GCN, GIN, SAGE, MoleculeGAT, MoleculeGIN

ENCODERS = {
    "gin": lambda: GIN(3, 8, layers=2),
    "gcn": lambda: GCN(3, 8),
    "sage": lambda: SAGE(3, 8),
    "molecule_gin": lambda: MoleculeGIN(8, layers=2),
    "molecule_gat": lambda: MoleculeGAT(8, layers=2, virtual_node=True),
}
SHAPES = [
    [(7, ring(7), True), (4, path(4), True), (1, [], True)],
    [(9, [(3, 0), (0, 1), (1, 1), (1, 1)], False), (3, path(3), True)],
]


@pytest.fixture
def fresh():
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield
    torch._dynamo.reset()


def results(forward: nn.Module, encoder: nn.Module, data: Batch) -> list[Tensor]:
    inputs = [p for key, p in encoder.named_parameters() if key != "token"]
    if "edge_weight" in data:
        inputs.append(data.edge_weight)
    out = forward(data)
    return [out.detach(), *torch.autograd.grad(out.sin().sum(), inputs)]


@pytest.mark.parametrize(
    "name", ["gcn", *(pytest.param(name, marks=pytest.mark.slow) for name in ENCODERS if name != "gcn")]
)
def test_a_compiled_encoder_is_the_same_for_every_graph(name, fresh):
    encoder, graphs = ENCODERS[name]().eval(), []
    whole = torch.compile(encoder, fullgraph=True, dynamic=True, backend="aot_eager")
    for shapes in SHAPES:
        data = batch_of(shapes, features="integer", edge_features="integer")
        if name.startswith("molecule"):
            data.x, data.edge_attr = data.x[:, :2] % 3, data.edge_attr % 3
        weighted = data.clone()  # a graph without weights comes first: that others have some must be seen
        weighted.edge_weight = torch.rand(data.num_edges, requires_grad=True)
        graphs += [data, weighted]
    for data in graphs:
        torch.testing.assert_close(results(whole, encoder, data), results(encoder, encoder, data))
    counted = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert counted == 2  # one without weights and one with, not one for each size
