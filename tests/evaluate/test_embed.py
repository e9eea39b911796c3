import pytest
import torch
from torch import Tensor, nn
from torch_geometric.data import Batch, Data
from torch_geometric.nn import global_add_pool

from graphcl.data.store import GraphStore
from graphcl.evaluate import embed
from graphcl.methods.method import Method


def graphs(count: int, seed: int = 0) -> list[Data]:
    """Rings of 1 to 6 nodes."""
    generator = torch.Generator().manual_seed(seed)
    out = []
    for i in range(count):
        n = 1 + i % 6
        ring = torch.arange(n)
        edges = torch.stack([ring, ring.roll(1)]) if n > 1 else torch.zeros(2, 0, dtype=torch.long)
        out.append(Data(x=torch.randn(n, 3, generator=generator), edge_index=edges, y=torch.tensor([i % 2])))
    return out


class Sums(Method):
    """A graph is the sum of its nodes; in training mode it would drop and count."""

    def __init__(self, pool: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.norm, self.drop, self.pool = nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), pool
        self.seen: list[tuple[int, bool, bool]] = []

    def encode(self, data: Data | Batch) -> Tensor:
        self.seen.append((data.num_graphs if isinstance(data, Batch) else 1, self.training, torch.is_grad_enabled()))
        h = self.drop(self.norm(self.linear(data.x)))
        return global_add_pool(h, data.batch, size=data.num_graphs) if self.pool else h


def test_graphs_in_their_own_order_whatever_the_batch_size():
    method, listed = Sums(), graphs(11)
    wanted = torch.stack([method.eval().encode(Batch.from_data_list([graph]))[0] for graph in listed]).detach()
    for batch_size in (1, 4, 11, 512):
        z = embed(method, GraphStore.from_graphs(listed), batch_size=batch_size)
        assert z.shape == (11, 4) and z.dtype == torch.float32 and z.device.type == "cpu"
        torch.testing.assert_close(z, wanted)
    torch.testing.assert_close(embed(method, listed), wanted)


def test_nodes_of_one_graph_and_of_many():
    method, listed = Sums(pool=False), graphs(7)
    whole = torch.cat([embed(method, graph) for graph in listed])
    torch.testing.assert_close(embed(method, listed, batch_size=2), whole)
    assert whole.shape == (sum(graph.num_nodes for graph in listed), 4)


def test_in_eval_mode_and_without_gradients():
    method = Sums()
    z = embed(method, graphs(5), batch_size=2)
    assert method.seen == [(2, False, False), (2, False, False), (1, False, False)]
    assert not z.requires_grad and torch.equal(z, embed(method, graphs(5), batch_size=2))
    (z * torch.ones(4, requires_grad=True)).sum().backward()  # no inference tensor: a probe may be trained on it


def test_every_modules_mode_and_state_are_restored():
    method = Sums().train()
    method.norm.eval()  # frozen on purpose
    before = {name: value.clone() for name, value in method.state_dict().items()}
    parameters = list(method.parameters())
    embed(method, graphs(5))
    assert [module.training for module in (method, method.linear, method.norm, method.drop)] == [
        True,
        True,
        False,
        True,
    ]
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())
    assert all(a is b for a, b in zip(method.parameters(), parameters, strict=True))


def test_the_mode_is_restored_after_an_error_too():
    class Broken(Sums):
        def encode(self, data):
            raise RuntimeError("no")

    method = Broken().train()
    with pytest.raises(RuntimeError, match="no"):
        embed(method, graphs(3))
    assert method.training and method.norm.training


def test_the_source_stays_and_torchs_random_state_too():
    graph = graphs(6)[5]
    keys, x = set(graph.keys()), graph.x.clone()
    method, state = Sums(pool=False), torch.get_rng_state()
    embed(method, graph)
    assert set(graph.keys()) == keys and torch.equal(graph.x, x)
    assert torch.equal(torch.get_rng_state(), state)


def test_labels_are_hidden():
    class Peeks(Sums):
        def encode(self, data):
            self.labels = data.y
            return super().encode(data)

    method = Peeks()
    embed(method, graphs(5))
    assert (method.labels == -1).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_embeddings_come_out_in_float32(dtype):
    class Other(Sums):
        def encode(self, data):
            return super().encode(data).to(dtype)

    assert embed(Other(), graphs(4)).dtype == torch.float32


def test_an_embedding_that_is_not_finite_is_named():
    class Bursts(Sums):
        def encode(self, data):
            z = super().encode(data)
            z[data.graph_id == 7, 1] = float("nan")
            z[data.graph_id == 8, 0] = float("inf")
            return z

    with pytest.raises(ValueError, match=r"2 of 11 embeddings are not finite, first row 7; .*lower the learning rate"):
        embed(Bursts(), graphs(11), batch_size=3)


def test_a_method_without_parameters_and_a_source_of_nothing():
    class Raw(Method):
        def encode(self, data):
            return global_add_pool(data.x, data.batch, size=data.num_graphs)

    torch.testing.assert_close(embed(Raw(), graphs(4))[2], graphs(4)[2].x.sum(0))
    with pytest.raises(ValueError, match="no graphs given"):
        embed(Raw(), [])


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_device_and_back():
    method, wanted = Sums(), embed(Sums(), graphs(9))
    z = embed(method, graphs(9), device="cuda")
    assert z.device.type == "cpu" and method.linear.weight.device.type == "cpu"
    torch.testing.assert_close(z, wanted, rtol=1e-4, atol=1e-4)
