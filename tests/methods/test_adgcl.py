import pytest
import torch
from references import infonce_by_hand
from small_methods import WIDTH, Neighbours, Rows, graphs, make

from graphcl.encoders import GAT, GCN, GIN, SAGE, ResGCN
from graphcl.encoders.readout import Readout
from graphcl.methods import ADGCL
from graphcl.methods.adgcl import mean_drop


def small(**settings):
    return ADGCL(Neighbours(), Neighbours(3), Readout(), **{"proj_dim": 4, "tau": 0.3, "view_hidden": 4, **settings})


def in_double(data):
    data.x = data.x.double()
    return data


def weight_by_hand(method, data, seed):
    """Suresh et al. 2021 (AD-GCL, arXiv:2106.05819), section 4.1: p_e = sigmoid(log d - log(1 - d) + w_e), d uniform,
    w_e = MLP([h_u; h_v]); one edge at a time."""
    h = method.view_encoder(data)
    torch.manual_seed(seed)
    uniform = torch.rand(data.num_edges)
    rows = []
    for e, (u, v) in enumerate(data.edge_index.T.tolist()):
        score = method.score(torch.cat([h[u], h[v]]))[0]
        rows.append(torch.sigmoid(torch.log(uniform[e]) - torch.log(1 - uniform[e]) + score))
    return torch.stack(rows)


def z_by_hand(method, data, weight):
    h = method.encoder.linear(data.x)
    out = list(h)
    for e, (u, v) in enumerate(data.edge_index.T.tolist()):
        out[v] = out[v] + weight[e] * h[u]
    pooled = [sum(out[i] for i in (data.batch == b).nonzero()[:, 0].tolist()) for b in range(data.num_graphs)]
    return torch.stack([method.project(row) for row in pooled])


def test_both_players_losses_by_hand():
    data, method = in_double(graphs()), small(reg=2.0).double()
    weight = weight_by_hand(method, data, 3)
    z1, z2 = (z_by_hand(method, data, w) for w in (torch.ones(data.num_edges), weight))
    disagreement = infonce_by_hand(z1, z2, 0.3)
    owner = data.batch[data.edge_index[0]]
    shares = [1 - weight[owner == b].mean() for b in range(data.num_graphs) if (owner == b).any()]
    dropped = sum(shares) / len(shares)  # the lone node's graph has no edges to drop
    assert len(shares) == data.num_graphs - 1
    for group, wanted in (("encoder", disagreement), ("views", 2.0 * dropped - disagreement)):
        torch.manual_seed(3)
        assert torch.allclose(method.loss(data, group)["loss"], wanted, atol=1e-6)


def test_each_player_gets_gradient_in_its_own_turn():
    data, method = graphs(), make("adgcl")
    groups = {name: list(own) for name, own in method.groups().items()}
    assert list(groups) == ["encoder", "views"]
    method.loss(data, "encoder")["loss"].backward()
    assert all(p.grad is None for p in groups["views"])
    method.zero_grad()
    for p in groups["encoder"]:
        p.requires_grad_(False)  # as the trainer does
    method.loss(data, "views")["loss"].backward()
    moved = [p for p in groups["views"] if p.grad is not None and p.grad.abs().sum() > 0]
    assert len(moved) >= len(groups["views"]) - 4  # not the mask token, nor a bias before a batch norm


def test_encoder_minimises_what_the_views_maximise():
    data = graphs()
    for group, sign in (("encoder", -1), ("views", 1)):
        method = make("adgcl")
        method.reg = 0.0
        optimizer = torch.optim.Adam([p for p in method.groups()[group] if p.requires_grad], lr=0.01)

        def disagreement(method=method):
            torch.manual_seed(7)
            method.eval()
            with torch.no_grad():
                return float(method.disagreement(data, method.edge_weight(data)))

        start = disagreement()
        for _ in range(25):
            method.train()
            optimizer.zero_grad()
            method.loss(data, group)["loss"].backward()
            optimizer.step()
        assert sign * (disagreement() - start) > 0.05 * start


def test_the_regulariser_keeps_edges():
    data, kept = graphs(), {}
    for reg in (0.0, 20.0):
        method = make("adgcl")
        method.reg = reg
        optimizer = torch.optim.Adam(list(method.groups()["views"]), lr=0.02)
        for _ in range(25):
            optimizer.zero_grad()
            method.loss(data, "views")["loss"].backward()
            optimizer.step()
        kept[reg] = float(method.edge_weight(data).detach().mean())
    assert kept[20.0] > 0.8 and kept[20.0] > kept[0.0] + 0.1


def test_the_player_that_waits_keeps_its_statistics_and_its_mode():
    data, method = graphs(), make("adgcl")
    method.train()
    for group, waiting in (("encoder", method.view_encoder), ("views", method.encoder)):
        before = {key: value.clone() for key, value in waiting.state_dict().items()}
        method.loss(data, group)
        assert all(torch.equal(value, before[key]) for key, value in waiting.state_dict().items())
        assert all(module.training for module in method.modules())


def test_weights_of_the_data_are_kept():
    data, method = graphs(), small()
    data.edge_weight = torch.zeros(data.num_edges)
    torch.manual_seed(0)
    with torch.no_grad():
        z = method.project(method.encode(data)).double()  # a dropped edge of weight 0 is what it was
        assert torch.allclose(method.loss(data)["loss"].double(), infonce_by_hand(z, z, 0.3), atol=1e-5)


def test_mean_drop_of_graphs_without_edges():
    data = graphs([1, 1])
    assert mean_drop(data, torch.zeros(0)) == 0
    method = small()
    for group in ("encoder", "views"):
        loss = method.loss(data, group)["loss"]
        loss.backward()
        assert loss.isfinite()


@pytest.mark.parametrize("frozen", [False, True], ids=["as it is", "frozen as the trainer does"])
@pytest.mark.parametrize("bad", [Rows, lambda: GAT(WIDTH, 8)], ids=["own", "gat"])
def test_an_encoder_that_ignores_edge_weights_is_refused(bad, frozen):
    method = ADGCL(bad(), Neighbours(), Readout())
    for p in method.groups()["encoder"]:
        p.requires_grad_(not frozen)
    with pytest.raises(ValueError, match=r"the encoder \w+ does not read data.edge_weight; use gin, gcn, sage, resgcn"):
        method.loss(graphs(), "views")


@pytest.mark.parametrize("encoder", [GCN, GIN, SAGE, ResGCN])
def test_the_encoders_that_the_error_names_do_read_them(encoder):
    method = ADGCL(encoder(WIDTH, 8), Neighbours(), Readout())
    method.loss(graphs(), "views")["loss"].backward()
    assert method.score[0].weight.grad.abs().sum() > 0


def test_weights_are_finite_at_the_ends_of_the_uniform(monkeypatch):
    method, data = small(), graphs()
    for value in (0.0, 1.0):
        monkeypatch.setattr(torch, "rand_like", lambda like, value=value: torch.full_like(like, value))
        for autocast in (False, True):
            with torch.autocast("cpu", enabled=autocast):
                loss = method.loss(data, "views")["loss"]
            loss.backward()
            assert loss.isfinite() and method.score[0].weight.grad.isfinite().all()
            weight = method.edge_weight(data)
            assert ((weight > 0) & (weight < 1)).all()
