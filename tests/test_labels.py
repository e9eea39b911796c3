"""Hidden labels cannot leak: poisoning them leaves the weights as they are, to the bit."""

import torch
import torch.nn.functional as F
from torch import nn

from graphcl import METHODS, Method, build, fit, load_config, load_data
from graphcl.state import Run


class Supervised(Method):
    """A classifier on the labels that it is shown."""

    levels = ("node",)
    needs_labels = True

    def __init__(self, encoder, classes):
        super().__init__()
        self.encoder, self.classify = encoder, nn.Linear(encoder.out_dim, classes)

    def loss(self, data, group="model"):
        shown = data.y >= 0
        return {"loss": F.cross_entropy(self.classify(self.encoder(data))[shown], data.y[shown])}

    def encode(self, data):
        return self.encoder(data)


def trained(data, supervised):
    """Weights after three epochs on the data."""
    settings = ["train.epochs=3", "encoder.hidden=16", "encoder.out=8", "data.normalize=false"]
    run = build(load_config("grace", settings), data)
    if supervised:
        torch.manual_seed(0)
        method = Supervised(run.method.encoder, 7)
        visible = run.split[0].train
        loader = type(run.loader)(run.data, seed=0, visible=visible)
        run = Run(run.config, run.data, run.split, method, loader)
    fit(run, progress=False)
    return run.method.state_dict(), run.split[0].train


def test_poisoned_labels_change_nothing():
    for supervised in (False, True):
        data = load_data("cora").subgraph(torch.arange(2708) < 600)
        before, train = trained(data, supervised)
        poisoned = data.clone()
        poisoned.y = torch.randint(7, data.y.shape)
        if supervised:
            poisoned.y[train] = data.y[train]
        after, _ = trained(poisoned, supervised)
        assert before.keys() == after.keys()
        assert all(torch.equal(before[name], after[name]) for name in before)
        if supervised:  # the labels that it may see do matter
            poisoned.y[train] = (data.y[train] + 1) % 7
            other, _ = trained(poisoned, supervised)
            assert any(not torch.equal(before[name], other[name]) for name in before)


def test_a_method_that_needs_labels_is_given_those_of_the_training_split(monkeypatch):
    monkeypatch.setattr(METHODS["grace"], "needs_labels", True)
    run = build(load_config("grace"))
    (batch,) = run.loader.epoch(0)
    shown = (batch.y >= 0).nonzero()[:, 0]
    assert torch.equal(shown, run.split[0].train.sort().values)
    monkeypatch.setattr(METHODS["grace"], "needs_labels", False)
    (batch,) = build(load_config("grace")).loader.epoch(0)
    assert "y" not in batch or (batch.y < 0).all()
