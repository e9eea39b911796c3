"""What holds for every named protocol: its name stands in its scores, its seed makes it repeatable."""

import inspect
import re

import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.utils import erdos_renyi_graph

from graphcl.data.splits import Split, kfold_split
from graphcl.evaluate.link import hide_edges
from graphcl.evaluate.protocols import PROTOCOLS

every = pytest.mark.parametrize("name", sorted(PROTOCOLS))


def problem(kind: str):
    y = torch.arange(66) % 3
    z = torch.eye(3)[y] @ torch.randn(3, 5) + torch.randn(66, 5)
    if kind == "links":
        data = Data(edge_index=erdos_renyi_graph(66, 0.1), num_nodes=66)
        return z, None, [hide_edges(data, seed=seed)[1] for seed in range(2)]
    return z, y if kind == "classes" else z.sum(1) + torch.randn(66), kfold_split(y, 4, 0)


@every
def test_scores_carry_their_protocol_and_repeat(name):
    protocol = PROTOCOLS[name]
    assert protocol.name == name and re.fullmatch(r"[a-z-]+/(clean|paper)/[1-9]\d*", protocol.id)
    z, y, split = problem(protocol.kind)
    scores = protocol.score(z, y, split, seed=3)
    assert scores.protocol == protocol.id and scores.metric == protocol.metrics[0]
    assert protocol.score(z, y, split if protocol.needs_split else None, seed=3) == scores
    assert len(scores.values) == (len(split) if protocol.needs_split else {"kmeans": 1}.get(name.split("/")[0], 10))


@every
def test_every_metric_that_is_named_can_be_had(name):
    protocol = PROTOCOLS[name]
    z, y, split = problem(protocol.kind)
    y = y % 2 if protocol.kind == "classes" else y
    for metric in protocol.metrics[1:]:
        assert protocol.score(z, y, split, metric=metric).metric == metric


@every
def test_one_line_says_what_it_does(name):
    protocol = PROTOCOLS[name]
    assert str(protocol) == f"{protocol.id}: {protocol.statement}" and "\n" not in str(protocol)
    assert len(protocol.statement) > 40 and inspect.getdoc(protocol.score)
    assert set(protocol.levels) <= {"node", "graph"} and protocol.kind in ("classes", "values", "links")


def test_paper_and_clean_never_share_an_id():
    assert len({protocol.id for protocol in PROTOCOLS.values()}) == len(PROTOCOLS)


def test_other_settings_are_no_named_protocol():
    from graphcl.evaluate.knn import knn

    z, y, split = problem("classes")
    assert knn(z, y, split, k=5).protocol == knn(z, y, split, tau=0.5).protocol == ""
    assert knn(z, y, split).protocol == "knn-weighted/clean/2"


def test_every_probe_of_classes_gives_the_average_precision():
    torch.manual_seed(0)
    z, y = torch.randn(120, 6), torch.arange(120) % 2
    z[:, 0] += y
    split = Split(torch.arange(40), torch.arange(40, 80), torch.arange(80, 120))
    for name in ("linear/clean", "knn/clean", "svm-linear/clean"):
        protocol = PROTOCOLS[name]
        assert "prc_auc" in protocol.metrics, name
        found = protocol.score(z, y, split, metric="prc_auc")
        assert 0.5 < found.mean <= 1 and found.mean != protocol.score(z, y, split, metric="roc_auc").mean, name
