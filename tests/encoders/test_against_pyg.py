"""Encoders against PyG's own convolutions and the shapes of the papers; float64, copied weights."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
import torch_geometric.nn as pyg
from small_encoders import ODD, copied, fit_for, mlp, small
from torch import Tensor, nn

from graphcl.encoders import GCN, GIN, MoleculeGIN, Readout, ResGCN

CONVS = {
    "gcn": lambda a, b: pyg.GCNConv(a, b),
    "sage": lambda a, b: pyg.SAGEConv(a, b),
    "gat": lambda a, b: pyg.GATConv(a, b // 4, heads=4),
    "gin": lambda a, b: pyg.GINConv(mlp(a, b)),
}


@pytest.mark.parametrize("odd", ["ordinary", "isolated nodes", "self-loops", "multi-edges", "directed", "no edges"])
@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("name", CONVS)
def test_encoders_equal_plain_pyg(name, norm, odd):
    data = fit_for(name, ODD[odd])
    encoder = small(name, layers=3, batch_norm=norm, jk="last").double().train()
    h = data.x
    for (a, b), layer in zip(pairwise([3, 8, 8, 8]), encoder.layers, strict=True):
        h = copied(CONVS[name](a, b), layer.conv)(h, data.edge_index)
        act = nn.PReLU().double() if name == "gat" else nn.ReLU()
        bn = nn.BatchNorm1d(8).double() if norm else nn.Identity()
        h = bn(act(h)) if name == "gin" else act(bn(h))  # GraphCL's order, and BGRL's
    torch.testing.assert_close(encoder(data), h)


@pytest.mark.parametrize("odd", ["ordinary", "isolated nodes", "self-loops"])
def test_resgcn_is_bn_linear_relu_then_bn_conv_relu(odd):
    data, encoder = fit_for("resgcn", ODD[odd]), small("resgcn").double().train()

    def bn(h: Tensor) -> Tensor:
        return (h - h.mean(0)) / (h.var(0, unbiased=False) + 1e-5).sqrt() + 1e-4

    h = (bn(data.x) @ encoder.linear.weight.T + encoder.linear.bias).relu()
    for block in encoder.layers:
        h = copied(pyg.GCNConv(8, 8), block.conv)(bn(h), data.edge_index).relu()
    torch.testing.assert_close(encoder(data), h)


@pytest.mark.parametrize("odd", ["ordinary", "isolated nodes", "self-loops", "no edges"])
def test_resgcn_with_degrees_is_one_whose_features_have_them(odd):
    data = fit_for("resgcn", ODD[odd])
    encoder, wider = small("resgcn", degrees=2).double(), small("resgcn", in_dim=3 + 4).double()
    wider.load_state_dict({**encoder.state_dict(), "token": wider.token})
    degree = torch.bincount(data.edge_index[1], minlength=data.num_nodes)
    with_degrees = data.clone()
    with_degrees.x = torch.cat([data.x, degree[:, None], F.one_hot(degree.clamp(max=2), 3)], dim=1)
    torch.testing.assert_close(encoder(data), wider(with_degrees))
    weighted = data.clone()
    weighted.edge_weight = torch.ones(data.num_edges, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(encoder(weighted), encoder(data))
    with pytest.raises(ValueError, match="degrees must be at least 1, got 0; None leaves them out"):
        ResGCN(3, degrees=0)


def test_graphcl_gin_is_96_wide_and_pools_every_layer():
    data, encoder = fit_for("gin", ODD["ordinary"]), GIN(3).double()
    assert encoder.out_dim == 96 and len(encoder.layers) == 3
    h, pools = encoder.start(data), []
    for layer in encoder.layers:
        h = layer(h, data)
        pools.append(pyg.global_add_pool(h, data.batch))
    torch.testing.assert_close(Readout("sum")(encoder(data), data), torch.cat(pools, dim=1))


def test_the_shapes_of_the_papers():
    grace, bgrl = GCN(1433, 256, out=128), GCN(767, 512, out=256, activation="prelu", batch_norm=True)
    assert [layer.conv.lin.weight.shape for layer in grace.layers] == [(256, 1433), (128, 256)]
    assert [layer.conv.lin.weight.shape for layer in bgrl.layers] == [(512, 767), (256, 512)]
    assert sum(isinstance(module, nn.PReLU) for module in bgrl.modules()) == 2
    assert ResGCN(89).out_dim == 128 and len(ResGCN(89).layers) == 3
    assert MoleculeGIN().out_dim == 300 and len(MoleculeGIN().layers) == 5
