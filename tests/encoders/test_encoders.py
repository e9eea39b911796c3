"""What every encoder keeps to, whatever its convolution."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import pytest
import torch
import torch_geometric.nn as pyg
from device_guards import device_clean, to_meta
from graphs import batch_of, path, ring
from small_encoders import ODD, fit_for, ordinary, small
from torch import Tensor, nn
from torch_geometric.data import Data

from graphcl import config_encoders
from graphcl.encoders import ENCODERS, GAT, GCN, GIN, SAGE, Readout


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
