import math
import random

import networkx as nx
import pytest
import torch
import torch.nn.functional as F
from small_methods import WIDTH, Rows, graphs, molecules
from torch_geometric.data import Batch, Data
from torch_geometric.utils import to_networkx

from augment._segments import graphs_of
from graphcl import build, load_config, load_data
from graphcl.encoders import GIN, MoleculeGIN
from graphcl.encoders.readout import Readout
from graphcl.methods import ContextPrediction
from graphcl.methods.context_prediction import contrast


def small(hops=2, context_size=2, **settings):
    torch.manual_seed(0)
    encoders = (MoleculeGIN(8, layers=layers) for layers in (hops or 1, context_size))
    return ContextPrediction(*encoders, Readout("mean"), hops=hops, context_size=context_size, **settings)


def with_centres(method, centres):
    method.choose = lambda graphs: torch.tensor(centres)
    return method


def random_molecules(seed=0, sizes=(1, 4, 9, 15, 24, 12, 20)):
    """Sparse random graphs, some in several pieces, with categories."""
    rng, parts = random.Random(seed), []
    for n in sizes:
        network = nx.gnm_random_graph(n, n, seed=rng.randrange(10**6))
        edges = torch.tensor([*network.edges], dtype=torch.long).view(-1, 2).T
        x = torch.tensor([[rng.randrange(5), rng.randrange(3)] for _ in range(n)])
        kind = torch.tensor([[rng.randrange(4), rng.randrange(3)] for _ in range(edges.size(1))])
        kind = kind.long().view(-1, 2)
        parts.append(Data(x=x, edge_index=torch.cat([edges, edges.flip(0)], 1), edge_attr=torch.cat([kind, kind])))
    return Batch.from_data_list(parts)


def loss_by_hand(method, data, centres):
    """Hu et al. 2020, arXiv:1905.12265, section 3.1.1: one molecule at a time, NetworkX for distances and subgraphs."""
    k, r1, r2 = method.hops, method.hops - 1, method.hops - 1 + method.context_size
    start, neighbourhoods, contexts = 0, [], []
    balls, rings = [], []
    for part, centre in zip(data.to_data_list(), centres, strict=True):
        root = centre - start
        start += part.num_nodes
        distance = nx.single_source_shortest_path_length(to_networkx(part, to_undirected=True), root)
        ball = [v for v in range(part.num_nodes) if distance.get(v, 99) <= k]
        ring = [v for v in range(part.num_nodes) if r1 < distance.get(v, 99) <= r2]
        if not ring:
            continue
        balls.append((part.subgraph(torch.tensor(ball)), ball.index(root)))
        rings.append((part.subgraph(torch.tensor(ring)), [i for i, v in enumerate(ring) if v in ball]))
    for encoder, pieces, rows in (
        (method.encoder, balls, neighbourhoods),
        (method.context_encoder, rings, contexts),
    ):
        h, start = encoder(Batch.from_data_list([piece for piece, _ in pieces])), 0
        for piece, of in pieces:
            rows.append(h[start : start + piece.num_nodes][of])
            start += piece.num_nodes
    contexts = [rows.mean(0) for rows in contexts]
    m, losses, hits = len(contexts), [[], []], [[], []]
    for i in range(m):
        right = neighbourhoods[i] @ contexts[i]
        losses[0].append(-F.logsigmoid(right))
        hits[0].append(float(right > 0))
        for shift in range(1, method.negatives + 1):
            wrong = neighbourhoods[i] @ contexts[(i + shift) % m]
            losses[1].append(-F.logsigmoid(-wrong))
            hits[1].append(float(wrong < 0))
    loss = torch.stack(losses[0]).mean() + method.negatives * torch.stack(losses[1]).mean()
    return loss, sum(sum(part) / len(part) for part in hits) / 2, m / len(centres)


@pytest.mark.parametrize("negatives", [1, 2])
@pytest.mark.parametrize("seed", range(4))
def test_loss_by_hand(seed, negatives):
    data = random_molecules(seed)
    generator = torch.Generator().manual_seed(seed)
    centres = [
        int(p + torch.randint(n, (), generator=generator)) for p, n in zip(data.ptr, data.ptr.diff(), strict=False)
    ]
    method = with_centres(small(negatives=negatives), centres).double()
    parts = method.loss(data)
    loss, accuracy, part = loss_by_hand(method, data, centres)
    assert 2 / len(centres) <= part < 1
    assert torch.allclose(parts["loss"].double(), loss, atol=1e-4)
    assert parts["accuracy"].item() == pytest.approx(accuracy) and parts["part"].item() == pytest.approx(part)
    gradients = []
    for value in (parts["loss"], loss):
        gradients.append(torch.autograd.grad(value, list(method.encoder.parameters()), retain_graph=True))
    for ours, wanted in zip(*gradients, strict=True):
        assert torch.allclose(ours, wanted, atol=1e-3, rtol=1e-3)


def test_distances_are_those_of_networkx():
    data = random_molecules(7, sizes=(30, 40, 1))
    centres = [3, 35, 70]
    method = small(hops=3, context_size=3)
    network = to_networkx(data, to_undirected=True)
    wanted = [6] * data.num_nodes
    for centre in centres:
        for v, d in nx.single_source_shortest_path_length(network, centre, 5).items():
            wanted[v] = d
    assert method.distances(data, torch.tensor(centres)).tolist() == wanted


def test_every_atom_is_a_centre_as_often():
    data, method = graphs([1, 4, 10]), small()
    torch.manual_seed(0)
    drawn = torch.stack([method.choose(graphs_of(data)) for _ in range(2000)])
    assert (data.batch[drawn] == torch.arange(3)).all()
    for nodes, often in ((4, drawn[:, 1]), (10, drawn[:, 2])):
        p = 1 / nodes
        assert all(abs(n - 2000 * p) < 5 * math.sqrt(2000 * p * (1 - p)) for n in often.unique(return_counts=True)[1])
        assert len(often.unique()) == nodes


def test_what_is_beyond_the_ring_changes_nothing():
    data = molecules([20])
    method = with_centres(small(), [0])
    before = method.loss(data)["loss"]
    data.x[[5, 10, 15], 0] = 80  # hops 2 and context 2 see no further than 3 bonds
    assert torch.equal(method.loss(data)["loss"], before)
    data.x[3, 0] = 80
    assert not torch.equal(method.loss(data)["loss"], before)


def test_contrast_of_one_pair_has_no_negative():
    z, c = torch.tensor([[0.3, -1.0]]), torch.tensor([[2.0, 0.5]])
    for negatives in (1, 3):
        assert contrast(z, c, negatives)["loss"].item() == pytest.approx(math.log1p(math.exp(-0.1)))


def test_contrast_wraps_around():
    z, c = torch.randn(3, 4), torch.randn(3, 4)
    wanted = -F.logsigmoid((z * c).sum(1)).mean() - F.logsigmoid(-(z * c.roll(-1, 0)).sum(1)).mean()
    assert contrast(z, c, 1)["loss"].item() == pytest.approx(wanted.item(), rel=1e-5)


@pytest.mark.parametrize("sizes", [[1], [1, 2, 3], [20, 1], [20], [1, 300, 4]])
def test_odd_sizes_give_every_parameter_a_gradient(sizes):
    """DDP waits for the gradient of every parameter, also where no molecule takes part."""
    method = small()
    parts = method.loss(molecules(sizes))
    parts["loss"].backward()
    assert all(value.isfinite() for value in parts.values())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in method.parameters())
    if max(sizes) < 4:
        assert parts["part"] == 0 and parts["loss"] == 0


def test_graphs_that_are_all_too_small_are_told_after_an_epoch():
    method = small()
    metrics = {key: float(value.detach()) for key, value in method.loss(molecules([1, 2, 3])).items()}
    with pytest.raises(ValueError, match=r"no graph reaches 2 hops from its centre.*set method.hops lower"):
        method.after_epoch(metrics)
    method.after_epoch({"part": 0.5})


def test_encoders_of_different_widths_are_refused():
    with pytest.raises(ValueError, match=r"makes 16 numbers, the context's encoder 8;.*set encoder.jk=last"):
        ContextPrediction(GIN(WIDTH, 8, layers=2), GIN(WIDTH, 8, layers=1), Readout())


def test_an_encoder_without_layers_needs_hops():
    with pytest.raises(ValueError, match="Rows does not tell its layers; set hops"):
        ContextPrediction(Rows(), Rows(), Readout())
    assert ContextPrediction(Rows(), Rows(), Readout(), hops=2).hops == 2
    with pytest.raises(ValueError, match="must be >= 1, got 2, 0 and 1"):
        ContextPrediction(Rows(), Rows(), Readout(), hops=2, context_size=0)
    with pytest.raises(ValueError, match="must be >= 1, got 0, 2 and 1"):
        small(hops=0)


def test_the_contexts_encoder_has_as_many_layers_as_the_context_is_wide():
    data = load_data("bbbp").subset(torch.arange(60))
    method = build(load_config("context_prediction", ["encoder.hidden=8", "method.context_size=2"]), data).method
    assert (len(method.encoder.layers), len(method.context_encoder.layers)) == (5, 2)
    assert method.hops == 5
    assert 0.3 < method.loss(data.batch(torch.arange(60)))["part"] <= 1
