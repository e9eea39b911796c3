"""GINConv, GCNConv and SAGEConv against PyG's own, float64: values, gradients to features, parameters and weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch
import torch_geometric.nn as pyg
from graphs import batch_of, from_networkx, generator, odd_batches, path, read_tu, real_networks
from torch import Tensor, nn
from torch_geometric import EdgeIndex
from torch_geometric.data import Batch
from torch_geometric.nn.conv import MessagePassing

from graphcl.encoders import convs
from graphcl.encoders.sparse import SparseLinear

KINDS = ["ordinary", "isolated nodes", "self-loops", "multi-edges", "directed", "no edges", "only one-node graphs"]
ODD = odd_batches()
GRAPHS = {name: ODD[name] for name in KINDS} | {name: from_networkx(net) for name, net in real_networks().items()}
WIDE = 40  # so wide that rows are multiplied before they are summed


def mlp(a: int, b: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(a, b), nn.ReLU(), nn.Linear(b, b))


# name: (ours, PyG's, made alike)
LAYERS = {
    "gin": (convs.GINConv, pyg.GINConv, lambda cls, a: cls(mlp(a, 6))),
    "gin, eps": (convs.GINConv, pyg.GINConv, lambda cls, a: cls(mlp(a, 6), eps=0.3, train_eps=True)),
    "gin, any nn": (convs.GINConv, pyg.GINConv, lambda cls, a: cls(nn.Linear(a, 6), eps=-0.5)),
    "gcn": (convs.GCNConv, pyg.GCNConv, lambda cls, a: cls(a, 6)),
    "gcn, improved": (convs.GCNConv, pyg.GCNConv, lambda cls, a: cls(a, 6, improved=True, bias=False)),
    "gcn, no loops": (convs.GCNConv, pyg.GCNConv, lambda cls, a: cls(a, 6, add_self_loops=False)),
    "gcn, plain": (convs.GCNConv, pyg.GCNConv, lambda cls, a: cls(a, 6, normalize=False)),
    "gcn, cached": (convs.GCNConv, pyg.GCNConv, lambda cls, a: cls(a, 6, cached=True)),
    "sage": (convs.SAGEConv, pyg.SAGEConv, lambda cls, a: cls(a, 6)),
    "sage, bare": (convs.SAGEConv, pyg.SAGEConv, lambda cls, a: cls(a, 6, root_weight=False, bias=False)),
    "sage, all": (convs.SAGEConv, pyg.SAGEConv, lambda cls, a: cls(a, 6, normalize=True, project=True)),
    "sage, max": (convs.SAGEConv, pyg.SAGEConv, lambda cls, a: cls(a, 6, aggr="max")),
    "sage, lazy": (convs.SAGEConv, pyg.SAGEConv, lambda cls, a: cls(-1, 6)),
    "gcn, lazy": (convs.GCNConv, pyg.GCNConv, lambda cls, a: cls(-1, 6)),
}


class WeightedGIN(pyg.GINConv):
    """As one writes it with PyG."""

    propagate_type: ClassVar[dict[str, Any]] = {"x": Tensor, "weight": Tensor}

    def forward(self, x: Tensor, edge_index: Tensor, weight: Tensor) -> Tensor:
        return self.nn(self.propagate(edge_index, x=x, weight=weight) + (1 + self.eps) * x)

    def message(self, x_j: Tensor, weight: Tensor) -> Tensor:
        return x_j * weight.view(-1, 1)


def pair(name: str, width: int) -> tuple[nn.Module, nn.Module]:
    """Ours and PyG's with the same weights, which went from PyG's to ours and back."""
    ours, theirs, make = LAYERS[name]
    fast, plain = make(ours, width).double(), make(theirs, width).double()
    if "lazy" in name:
        for layer in (fast, plain):
            layer(torch.ones(2, width, dtype=torch.float64), torch.zeros(2, 1, dtype=torch.long))
    fast.load_state_dict(plain.state_dict())
    plain.load_state_dict(fast.state_dict())
    return fast, plain


def results(layer: nn.Module, x: Tensor, edge_index: Tensor, *weight: Tensor) -> list[Tensor]:
    x, weight = x.clone().requires_grad_(), [w.clone().requires_grad_() for w in weight]
    out = layer(x, edge_index, *weight)
    up = torch.randn(out.shape, generator=generator(5), dtype=out.dtype)
    inputs = [x, *weight, *layer.parameters()]
    grads = torch.autograd.grad((out * up).sum(), inputs, allow_unused=True)
    return [out, *(torch.zeros_like(i) if g is None else g for i, g in zip(inputs, grads, strict=True))]


def case(graph: str, width: int) -> tuple[Tensor, Tensor, Tensor]:
    data = GRAPHS[graph]
    x = torch.randn(data.num_nodes, width, generator=generator(1), dtype=torch.float64)
    return x, data.edge_index, torch.rand(data.num_edges, generator=generator(2), dtype=torch.float64) + 0.1


def named(graph: str) -> Callable[[str], str]:
    return lambda message: f"{graph}: {message}"


@pytest.mark.parametrize("width", [4, WIDE])
@pytest.mark.parametrize("name", LAYERS)
def test_values_and_gradients_are_those_of_pyg(name, width):
    for graph in GRAPHS:
        x, edge_index, _ = case(graph, width)
        fast, plain = pair(name, width)
        torch.testing.assert_close(results(fast, x, edge_index), results(plain, x, edge_index), msg=named(graph))


@pytest.mark.parametrize("width", [4, WIDE])
@pytest.mark.parametrize("name", [name for name in LAYERS if "gcn" in name])
def test_weights_and_their_gradients_are_those_of_pyg(name, width):
    for graph in GRAPHS:
        x, edge_index, weight = case(graph, width)
        fast, plain = pair(name, width)
        got, wanted = results(fast, x, edge_index, weight), results(plain, x, edge_index, weight)
        if graph == "multi-edges":  # with several self-loops of one node; the test below is for their gradient
            got[2], wanted[2] = got[2][edge_index[0] != edge_index[1]], wanted[2][edge_index[0] != edge_index[1]]
        torch.testing.assert_close(got, wanted, msg=named(graph))


@pytest.mark.parametrize("width", [4, WIDE])
def test_weighted_gin_is_what_one_writes_with_pyg(width):
    for graph in GRAPHS:
        x, edge_index, weight = case(graph, width)
        fast, _ = pair("gin", width)
        written = WeightedGIN(mlp(width, 6)).double()
        written.load_state_dict(fast.state_dict())
        got, wanted = results(fast, x, edge_index, weight), results(written, x, edge_index, weight)
        torch.testing.assert_close(got, wanted, msg=named(graph))


def test_of_several_self_loops_the_last_one_counts():
    x, _, _ = case("ordinary", 4)
    edge_index = torch.tensor([[0, 1, 1, 2, 1], [0, 1, 0, 1, 1]])
    weight = torch.tensor([0.5, 7.0, 2.0, 1.0, 3.0], dtype=torch.float64)
    fast, plain = pair("gcn", 4)
    got, wanted = results(fast, x, edge_index, weight), results(plain, x, edge_index, weight)
    assert got[2][1] == 0  # PyG gives the overwritten one the gradient of the last
    wanted[2][1] = 0
    torch.testing.assert_close(got, wanted)


def test_edges_without_weight_do_not_count():
    x, edge_index, weight = case("ordinary", 4)
    weight[::2] = 0
    for name in ("gcn", "gcn, no loops", "gcn, plain"):
        fast, plain = pair(name, 4)
        torch.testing.assert_close(fast(x, edge_index, weight), plain(x, edge_index, weight))
        torch.testing.assert_close(fast(x, edge_index, weight), fast(x, edge_index[:, 1::2], weight[1::2]))


@pytest.mark.parametrize("name", ["gin", "gcn", "sage"])
def test_a_real_batch(name, mutag):
    x = mutag.x.double()
    fast, plain = pair(name, x.size(1))
    torch.testing.assert_close(results(fast, x, mutag.edge_index), results(plain, x, mutag.edge_index))


@pytest.fixture(scope="module")
def mutag(graphcl_data) -> Batch:
    return Batch.from_data_list(read_tu(graphcl_data, "MUTAG", 40))


@pytest.fixture
def propagated(monkeypatch):
    """The layers that went PyG's way."""
    seen = []
    for cls in (convs.GINConv, convs.GCNConv, convs.SAGEConv):

        def propagate(self: Any, *args: Any, _way: Any = cls.propagate, **kwargs: Any) -> Tensor:
            seen.append(self)
            return _way(self, *args, **kwargs)

        monkeypatch.setattr(cls, "propagate", propagate)
    return seen


@pytest.mark.filterwarnings("ignore::UserWarning")  # of torch's sparse tensors
@pytest.mark.parametrize("name", ["gin", "gcn", "sage"])
def test_what_the_sum_cannot_do_goes_the_way_of_pyg(name, propagated):
    x, edge_index, _ = case("directed", 4)
    fast, plain = pair(name, 4)
    torch.testing.assert_close(fast(x, edge_index), plain(x, edge_index))
    fast(x, EdgeIndex(edge_index))
    assert not propagated
    fast.flow = plain.flow = "target_to_source"
    torch.testing.assert_close(fast(x, edge_index), plain(x, edge_index))
    assert propagated == [fast]
    fast.flow = plain.flow = "source_to_target"
    n, e = len(x), edge_index.size(1)
    adjacency = torch.sparse_coo_tensor(edge_index.flip(0), torch.ones(e, dtype=x.dtype), (n, n)).coalesce()
    torch.testing.assert_close(fast(x, adjacency), plain(x, adjacency))
    handle = fast.register_message_forward_hook(lambda module, inputs, out: 2 * out)
    assert not torch.allclose(fast(x, edge_index), plain(x, edge_index))
    handle.remove()
    torch.testing.assert_close(fast(x, edge_index), plain(x, edge_index))
    if name != "gcn":
        ends = edge_index % 3  # the first three nodes are targets
        torch.testing.assert_close(fast((x, x[:3]), ends), plain((x, x[:3]), ends))
        with pytest.raises(ValueError, match=f"{type(fast).__name__} reads edge_weight for x .* leave edge_weight out"):
            fast((x, x[:3]), ends, torch.ones(e))


def test_sparse_features_in_every_layer():
    x, edge_index, weight = case("ordinary", 12)
    x = x * (torch.rand(x.shape, generator=generator(7)) < 0.2)
    for name, parts in (("gin", ["nn.0"]), ("gcn", ["lin"]), ("sage", ["lin_l", "lin_r"])):
        dense, _ = pair(name, 12)
        sparse, _ = pair(name, 12)
        for part in parts:
            sparse.set_submodule(part, SparseLinear(12, 6, bias=dense.get_submodule(part).bias is not None).double())
        sparse.load_state_dict(dense.state_dict())
        for weights in ((), (weight,)):
            got, wanted = results(sparse, x, edge_index, *weights), results(dense, x, edge_index, *weights)
            torch.testing.assert_close(got, wanted)
            with torch.no_grad():
                skipping = sparse(x, edge_index, *weights)  # x has no gradient here
            torch.testing.assert_close(skipping, wanted[0])


def test_half_precision_is_close():
    data = batch_of([(9, path(9), True)])
    x = torch.randn(9, 4, generator=generator(0))
    for name in ("gin", "gcn", "sage"):
        fast = pair(name, 4)[0].float()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            got = fast(x, data.edge_index, torch.full((data.num_edges,), 0.5))
        got.float().sum().backward()
        torch.testing.assert_close(
            got.float(), fast(x, data.edge_index, torch.full((data.num_edges,), 0.5)), atol=0.1, rtol=0.05
        )
        whole = fast.bfloat16()
        assert whole(x.bfloat16(), data.edge_index, torch.full((data.num_edges,), 0.5)).dtype == torch.bfloat16


def test_they_are_layers_of_pyg():
    model = pyg.Sequential("x, edge_index", [(convs.GINConv(mlp(3, 4)), "x, edge_index -> x"), nn.ReLU()])
    data = ODD["ordinary"]
    assert model(data.x, data.edge_index).shape == (20, 4)
    assert all(issubclass(cls, MessagePassing) for cls in (convs.GINConv, convs.GCNConv, convs.SAGEConv))


def test_edges_of_other_types_are_refused_by_pyg():
    x = torch.randn(5, 3)
    with pytest.raises(ValueError, match="Expected 'edge_index' to be of integer type"):
        convs.GINConv(mlp(3, 4))(x, torch.rand(2, 4))


def hooked_layers() -> dict[str, tuple[nn.Module, nn.Module, nn.Linear]]:
    """Ours and PyG's, and the linear layer inside ours that is to be hooked (the other is made by its copy)."""
    made = {}
    for name, (ours, theirs, make, find) in {
        "gin": (convs.GINConv, pyg.GINConv, lambda cls: cls(mlp(WIDE, 6)), lambda conv: conv.nn[0]),
        "gcn": (convs.GCNConv, pyg.GCNConv, lambda cls: cls(WIDE, 6), lambda conv: conv.lin),
        "gcn, wider": (convs.GCNConv, pyg.GCNConv, lambda cls: cls(4, 6), lambda conv: conv.lin),
        "sage": (convs.SAGEConv, pyg.SAGEConv, lambda cls: cls(WIDE, 6), lambda conv: conv.lin_l),
        "sage, root": (convs.SAGEConv, pyg.SAGEConv, lambda cls: cls(WIDE, 6), lambda conv: conv.lin_r),
    }.items():
        fast, plain = make(ours).double(), make(theirs).double()
        fast.load_state_dict(plain.state_dict())
        made[name] = fast, plain, find(fast), find(plain)
    return made


@pytest.mark.parametrize("name", list(hooked_layers()))
def test_hooks_of_linear_layers_are_called_as_by_pyg(name):
    fast, plain, ours, theirs = hooked_layers()[name]
    x, edge_index, _ = case("ordinary", ours.weight.size(1))
    calls = []
    for linear in (ours, theirs):
        linear.register_forward_hook(lambda module, args, out: calls.append(module) or 3 * out)
    torch.testing.assert_close(fast(x, edge_index), plain(x, edge_index), rtol=0, atol=1e-12)
    assert [id(module) for module in calls] == [id(ours), id(theirs)]


@pytest.mark.parametrize("norm", [torch.nn.utils.weight_norm, torch.nn.utils.parametrizations.weight_norm])
@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_normalised_weights_are_those_of_the_moment(norm):
    x, edge_index, _ = case("ordinary", WIDE)
    conv = convs.GINConv(nn.Sequential(norm(nn.Linear(WIDE, 3)))).double()
    conv(x, edge_index)
    with torch.no_grad():
        for name, parameter in conv.named_parameters():
            parameter.mul_(3 if name.endswith(("weight_g", "original0")) else 1)
    result = conv(x, edge_index)
    torch.testing.assert_close(result, pyg.GINConv.forward(conv, x, edge_index), rtol=0, atol=1e-12)
    result.sum().backward()
    assert all(parameter.grad is not None for parameter in conv.parameters())


def test_a_lazy_layer_in_gin_finds_its_width():
    x, edge_index, _ = case("ordinary", WIDE)
    conv = convs.GINConv(nn.Sequential(nn.LazyLinear(3, dtype=torch.float64)))
    torch.testing.assert_close(conv(x, edge_index), pyg.GINConv.forward(conv, x, edge_index), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["gin", "gcn", "sage"])
def test_weights_that_are_not_one_an_edge_are_refused(name):
    x, edge_index, weight = case("ordinary", 4)
    layer, _ = pair(name, 4)
    for wrong in (weight[:-1], torch.cat([weight, weight]), weight[:, None]):
        with pytest.raises(
            ValueError, match=rf"edge_weight has shape \[.*\] for {len(weight)} edges; it must be \[E\]"
        ):
            layer(x, edge_index, wrong)
