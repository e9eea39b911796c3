"""What every encoder keeps to, whatever its convolution."""

from __future__ import annotations

import copy
import inspect
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torch_geometric.nn as pyg
from device_guards import device_clean, to_meta
from graphs import batch_of, odd_batches, path, ring
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch_geometric.data import Batch, Data

from graphcl import config_encoders
from graphcl.encoders import ENCODERS, GAT, GCN, GIN, SAGE, MoleculeGIN, Readout, ResGCN
from graphcl.encoders.convs import GINConv, SAGEConv

FLOAT = [name for name in ENCODERS if not name.startswith("molecule")]
WEIGHTED = [name for name in ENCODERS if name != "gat"]
ODD = odd_batches()


def small(name: str, in_dim: int = 3, **settings: Any) -> nn.Module:
    """An encoder of width 8."""
    cls = ENCODERS[name]
    return cls(in_dim, hidden=8, **settings) if cls.takes_in_dim else cls(hidden=8, **settings)


def fit_for(name: str, data: Any, dtype: torch.dtype = torch.float64) -> Any:
    """The same graphs with features that the encoder reads, different for every row."""
    data = data.clone()
    n, e = data.num_nodes, data.num_edges
    if name.startswith("molecule"):
        data.x = torch.stack([torch.arange(n) * 7 % 120, torch.arange(n) % 3], dim=1)
        data.edge_attr = torch.stack([torch.arange(e) % 4, torch.arange(e) % 3], dim=1)
    else:
        data.x = torch.randn(n, 3, generator=torch.Generator().manual_seed(n), dtype=dtype)
    return data


def ordinary(name: str) -> Batch:
    return fit_for(name, ODD["ordinary"])


# --- the contract -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ENCODERS)
def test_the_config_and_the_class_agree(name):
    fields = getattr(config_encoders, ENCODERS[name].__name__).model_fields
    arguments = inspect.signature(ENCODERS[name]).parameters
    taken = [key for key in arguments if key != "in_dim"]
    assert {key: arguments[key].default for key in taken} == {
        key: f.default for key, f in fields.items() if key != "name"
    }
    assert ENCODERS[name].takes_in_dim == ("in_dim" in arguments)


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("name", ENCODERS)
def test_every_graph_gives_one_finite_row_a_node_and_gradients(name, odd):
    data = fit_for(name, ODD[odd])
    encoder = small(name).double()
    for mode in (True, False):
        h = encoder.train(mode)(data)
        assert h.shape == (data.num_nodes, encoder.out_dim)
        assert h.isfinite().all()
    h.square().sum().backward()
    trained = [p for key, p in encoder.named_parameters() if key != "token"]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in trained)


@pytest.mark.parametrize("name", ENCODERS)
def test_layer_by_layer_is_the_forward_pass(name):
    data, encoder = ordinary(name), small(name).double()
    h, outs = encoder.start(data), []
    for layer in encoder.layers:
        h = layer(h, data)
        outs.append(h)
    cat = getattr(encoder, "jk", "last") == "cat"
    assert torch.equal(encoder(data), torch.cat(outs, dim=1) if cat else h)


@pytest.mark.parametrize("name", [name for name in ENCODERS if name != "resgcn"])
def test_jk_cat_puts_the_layers_side_by_side(name):
    data = ordinary(name)
    last, cat = small(name, layers=3, jk="last").double(), small(name, layers=3, jk="cat").double()
    cat.load_state_dict(last.state_dict())
    assert (last.out_dim, cat.out_dim) == (8, 24)
    assert torch.equal(cat(data)[:, 16:], last(data))


@pytest.mark.parametrize("name", ["gcn", "sage", "gat"])
def test_out_is_the_width_of_the_last_layer(name):
    data = ordinary(name)
    for settings_, width in (({}, 4), ({"layers": 1}, 4), ({"layers": 3, "jk": "cat"}, 20)):
        encoder = small(name, out=4, **settings_).double()
        assert encoder(data).shape[1] == encoder.out_dim == width


@pytest.mark.parametrize("name", ENCODERS)
def test_renumbering_the_nodes_and_shuffling_the_edges_renumbers_the_rows(name):
    data, encoder = ordinary(name), small(name).double()
    data.edge_weight = torch.rand(data.num_edges, dtype=torch.float64)
    order, edges = torch.randperm(data.num_nodes), torch.randperm(data.num_edges)
    place = order.argsort()
    other = Data(x=data.x[order], edge_index=place[data.edge_index][:, edges], edge_weight=data.edge_weight[edges])
    other.edge_attr = data.edge_attr[edges]
    torch.testing.assert_close(encoder(other), encoder(data)[order])


@pytest.mark.parametrize("name", ENCODERS)
def test_graphs_of_a_batch_do_not_see_each_other(name):
    data, encoder = ordinary(name), small(name).double().eval()
    alone = torch.cat([encoder(graph) for graph in data.to_data_list()])
    torch.testing.assert_close(encoder(data), alone)


@pytest.mark.parametrize("name", ENCODERS)
def test_the_input_is_left_as_it_was(name):
    data = ordinary(name)
    data.edge_weight = torch.rand(data.num_edges)
    before = {key: value.clone() for key, value in data.to_dict().items() if isinstance(value, Tensor)}
    small(name).double()(data)
    assert all(torch.equal(value, before[key]) for key, value in data.to_dict().items() if key in before)
    assert set(data.keys()) == set(before) | {key for key in data.keys() if not isinstance(data[key], Tensor)}  # noqa: SIM118


@pytest.mark.parametrize("name", ENCODERS)
def test_an_encoder_of_one_view_forgets_it_before_the_next(name):
    whole, encoder = ordinary(name), small(name).double().eval()
    view = whole[0]
    expected = small(name).double().eval()
    expected.load_state_dict(encoder.state_dict())
    encoder(whole)
    assert torch.equal(encoder(view), expected(view))


@pytest.mark.parametrize("name", ENCODERS)
def test_one_node_alone_trains_in_spite_of_batch_norm(name):
    data = fit_for(name, batch_of([(1, [], True)]))
    encoder = small(name, **({"batch_norm": True} if name in {"gin", "gcn", "sage", "gat"} else {})).double().train()
    before = {key: value.clone() for key, value in encoder.state_dict().items() if "running" in key}
    h = encoder(data)
    assert h.isfinite().all() and before  # every encoder here has batch norm
    assert all(torch.equal(encoder.state_dict()[key], value) for key, value in before.items())
    h.sum().backward()


@pytest.mark.parametrize("name", [name for name in ENCODERS if name != "resgcn"])
def test_dropout_in_training_only(name):
    data, encoder = ordinary(name), small(name, dropout=0.5).double()
    torch.manual_seed(1)
    one, two = encoder.train()(data), encoder(data)
    assert not torch.equal(one, two)
    encoder.eval()
    assert torch.equal(encoder(data), encoder(data))


@pytest.mark.parametrize("name", ENCODERS)
def test_an_encoder_stays_on_its_device_and_waits_for_nothing(name):
    data = fit_for(name, ODD["isolated nodes"], torch.float32)
    data.edge_weight = torch.rand(data.num_edges)
    encoder, readout = small(name), Readout("mean")
    with device_clean() as mode:
        data, encoder = to_meta(data, mode), to_meta(encoder, mode)
        pooled = readout(encoder(data), data)
        assert pooled.shape == (3, encoder.out_dim)
        pooled.sum().backward()


@pytest.mark.parametrize("name", ENCODERS)
def test_state_dict_goes_round(name):
    data, encoder = ordinary(name), small(name).double()
    encoder(data)  # moves the running statistics
    other = small(name).double()
    other.load_state_dict(encoder.state_dict())
    assert torch.equal(other.eval()(data), encoder.eval()(data))


@pytest.mark.parametrize("name", ENCODERS)
def test_a_deep_copy_is_an_encoder_of_its_own(name):
    data, encoder = ordinary(name), small(name).double().eval()
    twin = copy.deepcopy(encoder)  # a momentum encoder starts as one
    before = encoder(data)
    assert torch.equal(twin(data), before)
    for parameter in twin.parameters():
        nn.init.ones_(parameter)
    assert torch.equal(encoder(data), before) and not torch.equal(twin(data), before)


def test_a_user_writes_an_encoder_in_ten_lines():
    class Mine(nn.Module):
        def __init__(self, in_dim: int, out_dim: int) -> None:
            super().__init__()
            self.out_dim = out_dim
            self.conv = pyg.TAGConv(in_dim, out_dim)

        def forward(self, data: Any) -> Tensor:
            return self.conv(data.x, data.edge_index).relu()

    data = fit_for("mine", ODD["ordinary"], torch.float32)
    encoder = Mine(3, 6)
    pooled = Readout("sum")(encoder(data), data)
    assert pooled.shape == (3, encoder.out_dim)
    pooled.sum().backward()
    assert encoder.conv.lins[0].weight.grad is not None


# --- against PyG's own convolutions, float64, copied weights ----------------------------------------------------------


def copied(conv: nn.Module, source: nn.Module) -> nn.Module:
    conv.load_state_dict(source.state_dict())
    return conv.double()


def mlp(a: int, b: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(a, b), nn.ReLU(), nn.Linear(b, b))


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


# --- edge weights -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("odd", ["ordinary", "isolated nodes", "self-loops", "multi-edges", "no edges"])
@pytest.mark.parametrize("name", ENCODERS)
def test_weights_of_one_are_no_weights(name, odd):
    data, encoder = fit_for(name, ODD[odd]), small(name).double()
    plain = encoder(data)
    for ones in (torch.ones(data.num_edges, dtype=torch.float64), torch.ones(data.num_edges, 1, dtype=torch.long)):
        data.edge_weight = ones
        torch.testing.assert_close(encoder(data), plain)


@pytest.mark.parametrize("name", WEIGHTED)
def test_an_edge_of_weight_zero_is_no_edge(name):
    data, encoder = ordinary(name), small(name).double()
    keep = torch.arange(data.num_edges) % 3 > 0
    without = data.clone()
    without.edge_index, without.edge_attr = data.edge_index[:, keep], data.edge_attr[keep]
    data.edge_weight = keep.double()
    torch.testing.assert_close(encoder(data), encoder(without))
    data.edge_weight = torch.zeros(data.num_edges, dtype=torch.float64)
    without.edge_index, without.edge_attr = data.edge_index[:, :0], data.edge_attr[:0]
    torch.testing.assert_close(encoder(data), encoder(without))


@pytest.mark.parametrize("name", WEIGHTED)
def test_gradients_reach_the_edge_weights(name):
    data, encoder = ordinary(name), small(name).double().eval()
    data = data[0]
    weight = (torch.rand(data.num_edges, dtype=torch.float64) + 0.5).requires_grad_()

    def out(weight: Tensor) -> Tensor:
        view = data.clone()
        view.edge_weight = weight
        return encoder(view).sin().sum()

    (grad,) = torch.autograd.grad(out(weight), weight)
    assert (grad != 0).any()
    assert torch.autograd.gradcheck(out, (weight,), eps=1e-7, atol=1e-4, nondet_tol=1e-12)


@pytest.mark.parametrize("name", WEIGHTED)
def test_all_zero_weights_have_finite_gradients(name):
    data, encoder = ordinary(name), small(name).double()
    data.edge_weight = torch.zeros(data.num_edges, dtype=torch.float64, requires_grad=True)
    encoder(data).square().sum().backward()
    assert data.edge_weight.grad.isfinite().all()


def test_gat_does_not_read_edge_weights():
    data, encoder = fit_for("gat", ODD["ordinary"]), small("gat").double()
    plain = encoder(data)
    data.edge_weight = torch.rand(data.num_edges, dtype=torch.float64)
    assert torch.equal(encoder(data), plain)


def by_hand(conv: Any, x: Tensor, edge_index: Tensor, weight: Tensor, kind: str) -> Tensor:
    """Weighted sum or mean of the neighbours, one edge at a time."""
    total, weights = torch.zeros_like(x), torch.zeros(len(x), dtype=x.dtype)
    for (u, v), w in zip(edge_index.T.tolist(), weight.tolist(), strict=True):
        total[v] += w * x[u]
        weights[v] += w
    if kind == "gin":
        return conv.nn(total + x)
    mean = torch.stack([t / w if w > 0 else t for t, w in zip(total, weights, strict=True)])
    return conv.lin_l(mean) + conv.lin_r(x)


@pytest.mark.parametrize("kind", ["gin", "sage"])
@settings(max_examples=25, deadline=None)
@given(n=st.integers(1, 6), data=st.data())
def test_weighted_convolutions_equal_a_loop_over_edges(kind, n, data):
    node = st.integers(0, n - 1)
    edges = data.draw(st.lists(st.tuples(node, node, st.sampled_from([0.0, 0.5, 1.0, 3.0])), max_size=10))
    index = torch.tensor([(u, v) for u, v, _ in edges], dtype=torch.long).reshape(-1, 2).T
    weight = torch.tensor([w for *_, w in edges], dtype=torch.float64)
    x = torch.randn(n, 3, dtype=torch.float64)
    conv = (GINConv(mlp(3, 4)) if kind == "gin" else SAGEConv(3, 4)).double()
    torch.testing.assert_close(conv(x, index, weight), by_hand(conv, x, index, weight, kind))
    plain = copied(pyg.GINConv(mlp(3, 4)) if kind == "gin" else pyg.SAGEConv(3, 4), conv)
    torch.testing.assert_close(conv(x, index), plain(x, index))


@pytest.mark.parametrize("name", WEIGHTED)
def test_weights_that_do_not_fit_the_edges_are_refused(name):
    data = ordinary(name)
    data.edge_weight = torch.ones(5)
    with pytest.raises(ValueError, match=rf"edge_weight has 5 entries for {data.num_edges} edges; it must be \[E\]"):
        small(name).double()(data)


# --- input features ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FLOAT)
def test_masked_rows_hold_the_token(name):
    data, encoder = ordinary(name), small(name).double()
    assert torch.equal(encoder.token, torch.zeros(3))
    nn.init.normal_(encoder.token)
    masked = torch.arange(data.num_nodes) % 4 == 1
    by_hand = data.clone()
    by_hand.x = data.x.clone()
    by_hand.x[masked] = encoder.token.detach()
    data.masked = masked
    assert torch.equal(encoder(data), encoder(by_hand))
    encoder(data).square().sum().backward()
    assert (encoder.token.grad != 0).all()
    data.x[masked] = float("nan")  # what was masked cannot be seen
    assert encoder(data).isfinite().all()


@pytest.mark.parametrize("name", FLOAT)
def test_without_masked_rows_the_token_is_not_used(name):
    data, encoder = ordinary(name), small(name).double()
    encoder(data).sum().backward()
    assert encoder.token.grad is None


@pytest.mark.parametrize("name", FLOAT)
def test_integer_features_are_read_as_numbers(name):
    data, encoder = ODD["ordinary"].clone(), small(name)
    for dtype in (torch.uint8, torch.int64, torch.float64):  # whatever they come as
        data.x = (torch.arange(data.num_nodes * 3).view(-1, 3) % 5).to(dtype)
        asfloat = data.clone()
        asfloat.x = data.x.float()
        assert torch.equal(encoder(data), encoder(asfloat))


@pytest.mark.parametrize("name", FLOAT)
def test_missing_features_and_wrong_widths_say_what_to_do(name):
    encoder, data = small(name, in_dim=500), Data(edge_index=torch.tensor([[0], [1]]), num_nodes=2)
    with pytest.raises(ValueError, match=r"no node features \(x\); set data\.features to degree or ones"):
        encoder(data)
    data.x = torch.ones(2, 0)  # as the store gives graphs without features
    with pytest.raises(ValueError, match=r"no node features \(x\); set data\.features to degree or ones"):
        encoder(data)
    data.x = torch.ones(2, 1433)
    with pytest.raises(ValueError, match=r"features are 1433 wide, the encoder was built for 500; .* in_dim=1433"):
        encoder(data)
    data.x = torch.ones(2)
    with pytest.raises(ValueError, match=r"node features must be \[N, F\], got shape \(2,\).*unsqueeze"):
        encoder(data)
    with pytest.raises(ValueError, match=r"no node features \(x\); set data\.features"):
        small(name, in_dim=0)


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match=r"widths and layers must be >= 1, got in_dim=3, hidden=8, out=None, layers=0"):
        GIN(3, 8, layers=0)
    with pytest.raises(ValueError, match=r"jk must be 'last' .* or 'cat' .*, got 'sum'"):
        SAGE(3, jk="sum")
    with pytest.raises(ValueError, match=r"unknown activation 'gelu'; known: relu, prelu"):
        GCN(3, activation="gelu")
    with pytest.raises(ValueError, match=r"hidden \(30\) and out \(None\) must be multiples of heads, got heads=4"):
        GAT(3, 30)
    with pytest.raises(ValueError, match=r"hidden \(32\) and out \(6\) must be multiples of heads, got heads=4"):
        GAT(3, 32, out=6)
    with pytest.raises(ValueError, match=r"multiples of heads, got heads=0"):
        GAT(3, 32, heads=0)


@pytest.mark.parametrize("name", ENCODERS)
def test_a_graph_overfits(name):
    """Enough capacity and a working gradient: nodes of two rings are told apart."""
    data = fit_for(name, batch_of([(5, ring(5), True), (6, path(6), True)]), torch.float32)
    encoder = small(name, layers=2) if name.startswith("molecule") else small(name)
    target = data.batch.float()
    head = nn.Linear(encoder.out_dim, 1)
    optimizer = torch.optim.Adam([*encoder.parameters(), *head.parameters()], lr=0.02)

    def step() -> float:
        loss = nn.functional.binary_cross_entropy_with_logits(head(encoder(data)).squeeze(1), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    first = step()
    for _ in range(150):
        last = step()
    assert last < first / 4


@pytest.mark.parametrize("kind", ["gcn", "sage", "gat"])
def test_the_last_layer_may_end_without_activation(kind):
    x = torch.randn(30, 6, generator=torch.Generator().manual_seed(0))
    ends = torch.randint(30, (2, 90), generator=torch.Generator().manual_seed(1))
    data = Data(x=x, edge_index=ends)
    torch.manual_seed(0)
    encoder = ENCODERS[kind](6, 8, activation="relu", last_activation=False)
    torch.manual_seed(0)
    usual = ENCODERS[kind](6, 8, activation="relu")
    usual.load_state_dict(encoder.state_dict())
    assert (encoder(data) < 0).any()
    assert torch.equal(encoder(data).relu(), usual(data))


@pytest.mark.parametrize("name", ENCODERS)
def test_missing_edges_are_named(name):
    data = ordinary(name)
    data.edge_index = None
    with pytest.raises(ValueError, match=r"no edge_index; without edges it is torch\.empty\(2, 0, dtype=torch\.long\)"):
        small(name)(data)
