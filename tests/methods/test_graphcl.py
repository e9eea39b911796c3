import pytest
import torch
from references import graphcl_code_by_hand, infonce_by_hand, simclr_by_hand
from small_methods import Rows, graphs, identity, noisy

from graphcl.encoders.readout import Readout
from graphcl.methods import GraphCL

BY_HAND = {"infonce": infonce_by_hand, "ntxent": simclr_by_hand, "graphcl_code": graphcl_code_by_hand}


def by_hand(method, data):
    """The projection of every graph's summed rows, one graph at a time."""
    pooled = [method.encoder.linear(graph.x).sum(0) for graph in data.to_data_list()]
    return torch.stack([method.project(row) for row in pooled]).detach()


@pytest.mark.parametrize("objective", BY_HAND)
def test_loss_by_hand(objective):
    data = graphs()
    data.x = data.x.double()
    method = GraphCL(Rows(), Readout(), identity, noisy, proj_dim=4, tau=0.3, objective=objective).double()
    torch.manual_seed(1)
    data2 = noisy(data)
    torch.manual_seed(1)
    loss = method.loss(data)["loss"]
    assert torch.allclose(loss, BY_HAND[objective](by_hand(method, data), by_hand(method, data2), 0.3))


def test_both_views_give_gradient():
    data = graphs()
    method = GraphCL(Rows(), Readout(), noisy, noisy)
    method.loss(data)["loss"].backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in method.encoder.parameters())


def test_projection_is_as_wide_as_the_encoder_unless_told():
    assert GraphCL(Rows(5), Readout(), identity, identity).project[-1].out_features == 5
    assert GraphCL(Rows(5), Readout(), identity, identity, proj_dim=3).project[-1].out_features == 3


def test_the_embedding_is_before_the_projection():
    method, data = GraphCL(Rows(5), Readout("mean"), identity, identity, proj_dim=3), graphs()
    wanted = torch.stack([method.encoder.linear(graph.x).mean(0) for graph in data.to_data_list()])
    assert torch.allclose(method.encode(data), wanted, atol=1e-6)


def test_unknown_objective():
    with pytest.raises(ValueError, match="objective must be infonce, ntxent or graphcl_code, got 'nce'"):
        GraphCL(Rows(), Readout(), identity, identity, objective="nce")


def test_one_graph_alone_gives_zero():
    assert GraphCL(Rows(), Readout(), noisy, noisy).loss(graphs([5]))["loss"] == 0
