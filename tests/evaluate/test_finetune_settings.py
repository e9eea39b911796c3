"""Settings of fine-tuning: frozen, heads, rates by layer, patience, dropout, precise norm, precision."""

import pytest
import torch
from sklearn.metrics import average_precision_score
from small_finetune import FAST, both, either, graphs, nodes, several, thirds

from graphcl import process
from graphcl.data.splits import Split
from graphcl.encoders import GCN, GIN, Readout
from graphcl.encoders.inputs import NodeNorm
from graphcl.evaluate.finetune import Model, Settings, _groups, finetune, set_dropout, settle_norms, train
from graphcl.evaluate.tasks import make_task


@both
def test_a_frozen_encoder_is_as_it_was_and_the_head_learns(kind):
    encoder, readout, source, n = either(kind, noise=0.1)
    split, settings = thirds(n), Settings(epochs=60, lr=0.05, batch_size=16, freeze=True)
    task = make_task(source.y, n, split, "accuracy", "here", torch.device("cpu"))
    trained = train(encoder, readout, source, task, settings, seed=0, device=torch.device("cpu"))
    for name, value in encoder.state_dict().items():  # running statistics of batch norms too
        assert torch.equal(value, trained.model.encoder.state_dict()[name])
    assert trained.last_scores.test > 0.6
    found = finetune(encoder, readout, source, split, epochs=60, lr=0.05, batch_size=16, freeze=True)
    assert found.last.values == (trained.last_scores.test,) and found.last.protocol == ""
    model = trained.model.eval()
    data = source.batch(task.other) if kind == "graphs" else source
    with torch.no_grad():
        out = model(data) if kind == "graphs" else model(data)[task.other]
    torch.testing.assert_close(out, trained.best_out, rtol=1e-4, atol=1e-5)


def test_learning_rates_fall_from_the_head_down():
    model = Model(GIN(3, 8, layers=3), Readout("mean"), 2)
    groups = _groups(model, Settings(lr=1.0, layer_decay=0.5))
    rate = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    assert {rate[id(parameter)] for parameter in model.head.parameters()} == {1.0}
    for depth, layer in enumerate(reversed(model.encoder.layers)):
        assert {rate[id(parameter)] for parameter in layer.parameters()} == {0.5 ** (depth + 1)}
    assert len(rate) == len(list(model.parameters()))  # each once, and none forgotten
    assert [group["lr"] for group in _groups(model, Settings(lr=1.0, freeze=True))] == [1.0]


@both
def test_the_head_of_semi_supervised_graphcl_is_bn_linear_relu_bn_linear(kind):
    encoder, readout, source, n = either(kind)
    model = Model(encoder, readout, 3, head="mlp").double().train()
    data = source if kind == "nodes" else source.batch(torch.arange(n))
    data.x = data.x.double()
    torch.manual_seed(0)  # of the encoder's dropout
    h = model.embed(data).double()
    first, last = model.head[1], model.head[4]

    def normed(h):  # new batch norms have weight 1 and bias 0
        return (h - h.mean(0)) / (h.var(0, unbiased=False) + 1e-5).sqrt()

    want = normed((normed(h) @ first.weight.T + first.bias).relu()) @ last.weight.T + last.bias
    torch.testing.assert_close(model.head(h), want)
    assert first.weight.shape == (encoder.out_dim, encoder.out_dim)


@both
def test_a_head_with_batch_norm_learns_frozen_or_not_and_bears_a_batch_of_one(kind):
    encoder, readout, source, n = either(kind, noise=0.1)
    split = thirds(n)
    one_left = Split(split.train[:17], split.val, split.test)  # 16 + 1 graphs
    for freeze in (False, True):
        found = finetune(encoder, readout, source, split, **FAST | {"epochs": 40, "head": "mlp", "freeze": freeze})
        assert found.last.mean > (0.5 if freeze else 0.9)
        assert finetune(encoder, readout, source, one_left, **FAST | {"head": "mlp", "freeze": freeze}).last.valid


def test_patience_stops_early_and_changes_nothing_before():
    encoder, readout, source, n = either("graphs", noise=1.5)
    split = thirds(n)
    task = make_task(source.y, n, split, "accuracy", "here", torch.device("cpu"))
    settings = Settings(epochs=40, lr=0.02, batch_size=16)
    whole = train(encoder, readout, source, task, settings, seed=0, device=torch.device("cpu"))
    short = train(encoder, readout, source, task, settings._replace(patience=3), seed=0, device=torch.device("cpu"))
    assert len(short.epochs) < 40 and short.epochs == whole.epochs[: len(short.epochs)]
    assert len(short.epochs) == short.best + 1 + 3
    found = finetune(encoder, readout, source, [split, thirds(n, 1)], epochs=40, lr=0.02, batch_size=16, patience=3)
    assert found.last.values[0] == short.epochs[-1].test


def test_the_model_that_is_kept_is_that_of_the_best_epoch():
    encoder, readout, source, n = either("graphs", noise=1.5)
    task = make_task(source.y, n, thirds(n), "accuracy", "here", torch.device("cpu"))
    settings = Settings(epochs=12, lr=0.05, batch_size=16)
    told = []
    trained = train(
        encoder, readout, source, task, settings, seed=0, device=torch.device("cpu"), tell=lambda *now: told.append(now)
    )
    assert [epoch for epoch, _ in told] == list(range(12)) and [judged for _, judged in told] == trained.epochs
    with torch.no_grad():
        out = trained.model.eval()(source.batch(task.other))
    torch.testing.assert_close(out, trained.best_out, rtol=1e-4, atol=1e-5)
    assert trained.best_scores.val == max(judged.val for judged in trained.epochs)


def test_dropout_is_that_of_the_encoder_while_it_trains():
    encoder = GIN(3, 8, layers=2, dropout=0.1)
    set_dropout(encoder, 0.5)
    rates = {module.p for module in encoder.modules() if isinstance(module, torch.nn.Dropout)}
    assert rates == {0.5}
    encoder, readout, source, n = either("graphs", noise=1.5)
    last = {finetune(encoder, readout, source, thirds(n), dropout=p, **FAST).last for p in (0.0, 0.5)}
    assert len(last) == 2 and any(module.p == 0.2 for module in encoder.modules() if hasattr(module, "p"))
    bare = torch.nn.Module()
    with pytest.raises(ValueError, match=r"dropout=0\.5 for an encoder without dropout \(Module\); leave it out"):
        set_dropout(bare, 0.5)


@both
def test_precise_norm_has_the_statistics_of_the_weights_as_they_are(kind):
    if kind == "nodes":
        encoder, readout, source = GCN(3, 8, batch_norm=True), None, nodes(noise=1.5)
    else:
        encoder, readout, source = GIN(3, 8, layers=2), Readout("mean"), graphs(torch.arange(90) % 3, 1.5)
    task = make_task(source.y, 90, thirds(90), "accuracy", "here", torch.device("cpu"))

    def gap(precise_norm: bool) -> float:
        """Between the running means and those of all train rows in one batch."""
        settings = Settings(epochs=5, lr=0.05, batch_size=90, precise_norm=precise_norm)
        model = train(encoder, readout, source, task, settings, seed=0, device=torch.device("cpu")).model.train()
        norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm1d)]
        assert norms and {norm.momentum for norm in norms} == {0.1}
        kept = [norm.running_mean.clone() for norm in norms]
        for norm in norms:
            norm.momentum = 1.0
        with torch.no_grad():
            model(source if kind == "nodes" else source.batch(task.train))
        return max(float((norm.running_mean - mean).abs().max()) for norm, mean in zip(norms, kept, strict=True))

    assert gap(True) < 1e-5 < 1e-2 < gap(False)


def test_settled_norms_weigh_batches_by_their_rows():
    source = graphs(torch.arange(90) % 3, 1.5)
    model, seen = Model(GIN(3, 8, layers=2), Readout("mean"), 3), []
    layer = next(module for module in model.modules() if isinstance(module, NodeNorm))
    layer.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    batches = torch.randperm(90).split(32)
    settle_norms(model, lambda rows: model(source.batch(rows)), batches)
    share = torch.tensor([32, 32, 26]) / 90
    mean = sum(s * h.mean(0) for s, h in zip(share, seen, strict=True))
    variance = sum(s * h.var(0) for s, h in zip(share, seen, strict=True))
    torch.testing.assert_close(layer.module.running_mean, mean)
    torch.testing.assert_close(layer.module.running_var, variance)


@both
def test_half_precision_learns_as_well(kind, monkeypatch):
    encoder, readout, source, n = either(kind, noise=0.3)
    monkeypatch.setattr(process, "multiplies_bf16", lambda: False)
    with pytest.warns(UserWarning, match="bf16-mixed on a CPU without bfloat16 instructions"):
        found = finetune(encoder, readout, source, thirds(n), precision="bf16-mixed", **FAST | {"epochs": 40})
    assert found.last.mean > 0.9


def test_prc_auc_is_average_precision_and_stands_beside_roc_auc():
    y = several()[1][:, :1].nan_to_num(0)
    split = thirds(90)
    task = make_task(y, 90, split, "prc_auc", "here", torch.device("cpu"))
    out = torch.randn(len(task.other), 2)
    judged = task.judge(out, also=True)
    score = (out[:, 1] - out[:, 0])[len(split.val) :]
    assert judged.test == pytest.approx(average_precision_score(y[split.test, 0], score))
    assert set(judged.also) == {"roc_auc"}
