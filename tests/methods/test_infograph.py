import torch
from references import jsd_by_hand
from small_methods import Rows, graphs

from graphcl.encoders.readout import Readout
from graphcl.methods import InfoGraph


def test_loss_by_hand_with_a_graph_of_one_node():
    data = graphs([4, 1, 3])
    data.x = data.x.double()
    method = InfoGraph(Rows(), Readout()).double()
    h = method.encoder(data).detach()
    positive, negative = [], []
    for node in range(data.num_nodes):
        for graph in range(3):
            score = method.local(h[node]) @ method.whole(h[data.batch == graph].sum(0))
            (positive if data.batch[node] == graph else negative).append(score.detach())
    assert len(positive) == 8 and len(negative) == 16
    wanted = jsd_by_hand(torch.stack(positive), torch.stack(negative))
    assert torch.allclose(method.loss(data)["loss"], wanted)


def test_one_graph_alone_has_positives_only():
    method = InfoGraph(Rows(), Readout())
    loss = method.loss(graphs([4]))["loss"]
    loss.backward()
    assert loss.isfinite() and method.encoder.linear.weight.grad.isfinite().all()


def test_gradient_goes_through_nodes_and_graphs():
    data = graphs([4, 2, 3])
    for cut in ("local", "whole"):
        method = InfoGraph(Rows(), Readout())
        getattr(method, cut).register_forward_pre_hook(lambda _, args: tuple(arg.detach() for arg in args))
        method.loss(data)["loss"].backward()
        assert method.encoder.linear.weight.grad.abs().sum() > 0


def test_heads_are_as_wide_as_the_encoder_unless_told():
    assert InfoGraph(Rows(5), Readout()).local[-1].out_features == 5
    method = InfoGraph(Rows(5), Readout(), proj_dim=3)
    assert (method.local[-1].out_features, method.whole[-1].out_features) == (3, 3)
