"""Fine-tuning: what is learned, by which rule an epoch counts, that no label leaks, tasks, values, mistakes."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from small_finetune import FAST, both, either, graphs, nodes, several, thirds
from torch_geometric.data import Data

from graphcl.data.splits import Split
from graphcl.data.store import GraphStore
from graphcl.encoders import GCN, GIN, Readout
from graphcl.evaluate.finetune import STATEMENTS, finetune
from graphcl.evaluate.tasks import Classes, Values


@both
def test_classes_are_learned_and_the_encoder_stays_as_it_is(kind):
    encoder, readout, source, n = either(kind, noise=0.3)
    before = copy.deepcopy(encoder.state_dict())
    state = torch.get_rng_state()
    found = finetune(encoder, readout, source, [thirds(n), thirds(n, 1)], **FAST | {"epochs": 40})
    assert found.last.mean > 0.9 and found.clean.mean > 0.9
    assert all(torch.equal(before[name], value) for name, value in encoder.state_dict().items())
    assert encoder.training and torch.equal(state, torch.get_rng_state())
    assert len(found.last.values) == len(found.clean.valid) == 2
    assert [one.protocol for one in found] == list(STATEMENTS)


@both
def test_the_encoder_itself_is_trained(kind):
    """On top of an encoder that is frozen at nothing a head finds nothing."""
    encoder, readout, source, n = either(kind, noise=0.1)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.mul_(1e-3)
    assert finetune(encoder, readout, source, thirds(n), **FAST | {"epochs": 80}).last.mean > 0.9


@both
def test_the_three_rules_choose_as_they_say(kind):
    encoder, readout, source, n = either(kind, noise=1.5)
    splits = [thirds(n, seed) for seed in range(3)]
    # A run of e epochs is the start of a longer one, so its last scores are the curve at e.
    curve = [finetune(encoder, readout, source, splits, **FAST | {"epochs": e}).last for e in range(1, 7)]
    found = finetune(encoder, readout, source, splits, **FAST)
    assert found.last == curve[-1]
    for i in range(3):
        best = max(curve, key=lambda scores: scores.valid[i])  # of equals the first
        assert (found.clean.valid[i], found.clean.values[i]) == (best.valid[i], best.values[i])
    assert found.paper.values == max(curve, key=lambda scores: scores.mean).values
    assert found.paper.valid == ()


@both
def test_the_seed_decides(kind):
    encoder, readout, source, n = either(kind, noise=1.5)
    assert finetune(encoder, readout, source, thirds(n), **FAST) == finetune(
        encoder, readout, source, thirds(n), **FAST
    )
    last = {finetune(encoder, readout, source, thirds(n), seed=seed, **FAST).last for seed in range(4)}
    assert len({scores.values + scores.valid for scores in last}) > 1


# --- no label leaks ---------------------------------------------------------------------------------------------------


@both
def test_test_labels_choose_nothing_but_the_papers_epoch(kind):
    """Over all classes c, the shares of test rows that are called c sum to 1 if and only if no prediction changes."""
    encoder, readout, source, n = either(kind, noise=1.5)
    split = thirds(n)
    honest = finetune(encoder, readout, source, split, **FAST)
    shares = []
    for c in range(3):
        poisoned = source._like(y=source.y.clone()) if kind == "graphs" else source.clone()
        poisoned.y[split.test] = c
        found = finetune(encoder, readout, poisoned, split, **FAST)
        assert found.last.valid == honest.last.valid and found.clean.valid == honest.clean.valid
        shares.append((found.last.mean, found.clean.mean))
    assert torch.tensor(shares).sum(0).tolist() == pytest.approx([1, 1])


@both
def test_validation_labels_teach_nothing(kind):
    encoder, readout, source, n = either(kind, noise=1.5)
    split = thirds(n)
    honest = finetune(encoder, readout, source, split, **FAST)
    poisoned = source._like(y=source.y.clone()) if kind == "graphs" else source.clone()
    poisoned.y[split.val] = 2 - poisoned.y[split.val]
    found = finetune(encoder, readout, poisoned, split, **FAST)
    assert found.last.values == honest.last.values and found.paper == honest.paper


@both
def test_the_encoder_is_shown_no_label(kind):
    encoder, readout, source, n = either(kind)
    seen = []
    encoder.register_forward_pre_hook(lambda module, args: seen.append(args[0].y))
    finetune(encoder, readout, source, thirds(n), **FAST | {"epochs": 1})
    assert seen and all(y is None for y in seen)


# --- several tasks ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["roc_auc", "accuracy"])
def test_several_tasks_with_gaps(metric):
    source, y = several()
    encoder = GIN(3, 8, layers=2)
    found = finetune(encoder, Readout("mean"), source, thirds(90), metric=metric, **FAST | {"epochs": 30})
    alone = finetune(
        encoder, Readout("mean"), source._like(y=y[:, :1]), thirds(90), metric=metric, **FAST | {"epochs": 30}
    )
    assert alone.last.mean > 0.9 > found.last.mean > 0.5


def test_tasks_of_one_class_are_left_out_and_named():
    source, y = several()
    split = thirds(90)
    y[:, 1] = 0.0
    y[split.test, 2] = 1.0
    with pytest.warns(UserWarning, match=r"fine-tuning, split 0: tasks 1, 2 of 3 are left out of the mean"):
        found = finetune(GIN(3, 8), Readout("mean"), source._like(y=y), split, metric="roc_auc", **FAST)
    y[split.train, 2] = float("nan")  # what is left out teaches nothing either
    with pytest.warns(UserWarning, match="tasks 1, 2 of 3"):
        again = finetune(GIN(3, 8), Readout("mean"), source._like(y=y), split, metric="roc_auc", **FAST)
    assert found.last.values[0] > 0.5 and again.last.values[0] > 0.5
    with pytest.raises(ValueError, match="no task has both classes in train and test"):
        finetune(GIN(3, 8), Readout("mean"), source._like(y=0 * y), split, metric="roc_auc", **FAST)


def test_loss_is_the_mean_over_the_known_labels():
    _, y = several(30)
    split = thirds(30)
    tasks = y.nan_to_num(-1).long()
    task = Classes(tasks, split._asdict(), "roc_auc", "here", torch.device("cpu"))
    out = torch.randn(10, 3, dtype=torch.float64, requires_grad=True)
    terms = []
    for row, i in enumerate(split.train.tolist()):
        for t in range(3):
            if not y[i, t].isnan():
                terms.append(-F.logsigmoid(out[row, t] if y[i, t] == 1 else -out[row, t]))
    wanted = torch.stack(terms).mean()
    assert task.loss(out, split.train).item() == pytest.approx(wanted.item())
    (gradient,) = torch.autograd.grad(task.loss(out, split.train), out)
    torch.testing.assert_close(gradient, torch.autograd.grad(wanted, out)[0])
    assert (task.seen[torch.cat([split.val, split.test])] == -1).all()


def test_classes_may_have_any_names_and_one_may_be_new_in_test():
    source, split = nodes(noise=0.1), thirds(90)
    wanted = finetune(GCN(3, 8), None, source, split, **FAST | {"epochs": 40}).last.mean
    renamed = source.clone()
    renamed.y = torch.tensor([7, 40, 12])[source.y]
    assert finetune(GCN(3, 8), None, renamed, split, **FAST | {"epochs": 40}).last.mean == pytest.approx(
        wanted, abs=0.1
    )
    renamed.y[split.test] = 99
    assert finetune(GCN(3, 8), None, renamed, split, **FAST).last.mean == 0


# --- values -----------------------------------------------------------------------------------------------------------


def measured(n: int = 90, gaps: float = 0.2) -> tuple[GraphStore, torch.Tensor]:
    """Two targets in units far apart, of rings whose features tell them."""
    of = torch.arange(n) % 3
    y = torch.stack([500 + 100 * of, 0.01 * (2 - of)], dim=1) * (1 + 0.01 * torch.randn(n, 2))
    y[torch.rand(n, 2) < gaps] = float("nan")
    return graphs(of, noise=0.1)._like(y=y), y


@pytest.mark.parametrize("metric", ["rmse", "mae"])
def test_values_are_learned_in_their_own_units(metric):
    source, y = measured()
    source = source._like(y=y[:, :1])
    found = finetune(GIN(3, 8, layers=2), Readout("mean"), source, thirds(90), metric=metric, **FAST | {"epochs": 60})
    guess = (y[:, 0] - y[:, 0].nanmean()).square().nanmean().sqrt().item()
    assert found.clean.mean < guess / 2
    assert found.paper.mean <= found.clean.mean and found.paper.mean <= found.last.mean  # lower is better
    assert found.last.metric == metric and set(found.last.also) == {"rmse", "mae"} - {metric}
    assert found.clean.valid[0] <= found.last.valid[0]


def test_values_of_tasks_are_left_out_where_nothing_can_be_learned():
    source, y = measured()
    split = thirds(90)
    y[split.test, 1] = 0.5
    with pytest.warns(UserWarning, match=r"tasks 1 of 2 are left out of the mean: no two different values"):
        found = finetune(GIN(3, 8), Readout("mean"), source._like(y=y), split, metric="rmse", **FAST)
    assert math.isfinite(found.last.mean)
    y[split.train, 0] = 1.0
    with pytest.raises(ValueError, match="no task has two different values in train and test and one in val"):
        finetune(GIN(3, 8), Readout("mean"), source._like(y=y), split, metric="rmse", **FAST)


def test_loss_of_values_is_the_mean_square_over_the_known_in_train_deviations():
    _, y = measured(30)
    split = thirds(30)
    task = Values(y.double(), split._asdict(), "rmse", "here", torch.device("cpu"))
    out = torch.randn(10, 2, dtype=torch.float64, requires_grad=True)
    terms = []
    for t in range(2):
        known = y[split.train, t][~y[split.train, t].isnan()].double()
        mean, std = known.mean(), known.std(correction=0)
        for row, i in enumerate(split.train.tolist()):
            if not y[i, t].isnan():
                terms.append((out[row, t] - (y[i, t].double() - mean) / std) ** 2)
    wanted = torch.stack(terms).mean()
    assert task.loss(out, split.train).item() == pytest.approx(wanted.item(), rel=1e-5)
    (gradient,) = torch.autograd.grad(task.loss(out, split.train), out)
    torch.testing.assert_close(gradient, torch.autograd.grad(wanted, out)[0], rtol=1e-5, atol=1e-7)
    assert task.seen[torch.cat([split.val, split.test])].isnan().all()
    exact = (y.double()[task.other] - task.centre) / task.scale  # outputs that are the truth
    judged = task.judge(exact.nan_to_num(7.0), also=True)
    assert judged.test == pytest.approx(0) and judged.also["mae"] == pytest.approx(0)


def test_units_of_a_target_do_not_matter():
    source, y = measured(gaps=0.0)
    split = thirds(90)
    encoder = GIN(3, 8)
    one = finetune(encoder, Readout("mean"), source._like(y=y[:, :1]), split, metric="mae", **FAST)
    other = finetune(encoder, Readout("mean"), source._like(y=y[:, :1] * 4), split, metric="mae", **FAST)
    assert other.last.mean == pytest.approx(4 * one.last.mean)


# --- mistakes ---------------------------------------------------------------------------------------------------------


def test_mistakes_are_told():
    encoder, readout, source, n = either("graphs")
    with pytest.raises(
        ValueError, match=r"many graphs need a readout, got readout=None; use graphcl\.encoders\.Readout"
    ):
        finetune(encoder, None, source, thirds(n))
    with pytest.raises(ValueError, match="the nodes of one graph need none, got readout=Readout"):
        finetune(GCN(3, 8), readout, nodes(), thirds(n))
    for name in ("epochs", "lr", "batch_size"):
        with pytest.raises(ValueError, match=f"{name} must be > 0, got 0"):
            finetune(encoder, readout, source, thirds(n), **{name: 0})
    with pytest.raises(ValueError, match="metric must be one of accuracy, roc_auc, prc_auc, rmse, mae, got 'f1'"):
        finetune(encoder, readout, source, thirds(n), metric="f1")
    for settings, said in (
        ({"layer_decay": 0.0}, r"layer_decay must be in \(0, 1\], got 0\.0"),
        ({"layer_decay": 1.5}, "layer_decay must be in"),
        ({"freeze": True, "layer_decay": 0.5}, r"freeze \(--frozen\) trains the head alone; layer_decay=0\.5"),
        ({"patience": 0}, "patience must be at least 1 epoch, got 0"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1\.0"),
        ({"precision": "16"}, "precision must be '32' or 'bf16-mixed', got '16'"),
        ({"head": "deep"}, "head must be 'linear' or 'mlp', got 'deep'"),
    ):
        with pytest.raises(ValueError, match=said):
            finetune(encoder, readout, source, thirds(n), **settings)
    with pytest.raises(ValueError, match="labels must be finite or NaN; row 0, task 0 is inf"):
        finetune(encoder, readout, source._like(y=torch.full((n,), torch.inf)), thirds(n), metric="rmse")
    with pytest.raises(ValueError, match="no labels given"):
        finetune(encoder, readout, source._like(y=None), thirds(n))
    with pytest.raises(ValueError, match="regression is not supported"):
        finetune(encoder, readout, source._like(y=torch.randn(n)), thirds(n))
    broken = source.with_x(source.x.clone())
    broken.x[5] = float("nan")
    with pytest.raises(ValueError, match="split 0: the model's output is not finite; look for NaN in x"):
        finetune(encoder, readout, broken, thirds(n), **FAST)


def test_one_train_graph_a_class_and_graphs_without_edges():
    y = torch.arange(12) % 2
    source = GraphStore.from_graphs(
        [Data(x=torch.eye(2)[y[b]][None], edge_index=torch.zeros(2, 0).long(), y=y[b : b + 1]) for b in range(12)]
    )
    split = Split(torch.tensor([0, 1]), torch.arange(2, 6), torch.arange(6, 12))
    assert finetune(GIN(2, 8), Readout("sum"), source, split, **FAST | {"epochs": 40}).last.mean == 1
