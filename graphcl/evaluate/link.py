"""Link prediction: edges hidden from the encoder, told from pairs that are no edges by the embeddings of their ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import Tensor
from torch_geometric.data import Data

from graphcl.evaluate.scores import Scores, check_embeddings
from graphcl.evaluate.svm import standardised

DOT_PROTOCOL, HADAMARD_PROTOCOL = "link-dot/clean/1", "link-hadamard/clean/1"
STRENGTHS = tuple(10.0**power for power in range(-4, 4))  # scikit-learn's C, from the strongest regularisation on


class Links(NamedTuple):
    """Undirected pairs of nodes [., 2] int64, smaller number first: edges, and as many pairs that are none."""

    train: Tensor
    train_none: Tensor
    val: Tensor
    val_none: Tensor
    test: Tensor
    test_none: Tensor


def hide_edges(data: Data, *, val: float = 0.05, test: float = 0.1, seed: int = 0) -> tuple[Data, Links]:
    """The graph without a random share of its edges, and the pairs to fit, choose and test with.

    Both directions of a hidden edge go, with what belongs to them (edge_attr, ...); self-loops stay and are no pairs.
    Shares are of the undirected edges (Kipf and Welling, 2016, arXiv:1611.07308: 5 % and 10 %). val_none and
    test_none are pairs without an edge in the whole graph, train_none without one in the graph that is left: it may
    hold a hidden edge, since whoever trains cannot know.

    Raises ValueError for shares outside (0, 1), too few edges, and too few pairs that are none.
    """
    if not (val > 0 and test > 0 and val + test < 1):
        raise ValueError(f"val and test must be shares > 0 of sum < 1, got val={val}, test={test}; usual are 0.05, 0.1")
    assert data.edge_index is not None
    n, generator = int(data.num_nodes or 0), torch.Generator().manual_seed(seed)
    low, high = data.edge_index.cpu().aminmax(dim=0)
    code = low * n + high  # [E] the same for both directions
    pairs = code[low != high].unique()
    count_val, count_test = max(round(val * len(pairs)), 1), max(round(test * len(pairs)), 1)
    if len(pairs) < count_val + count_test + 1:
        raise ValueError(f"{len(pairs)} undirected edges cannot be shared out to train, val and test; 3 are needed")
    order = pairs[torch.randperm(len(pairs), generator=generator)]
    held, kept = order[: count_val + count_test], order[count_val + count_test :]
    none = _non_edges(n, pairs, count_val + count_test, generator)
    train_none = _non_edges(n, kept.sort().values, min(len(kept), n * (n - 1) // 2 - len(kept)), generator)
    stays = ~torch.isin(code, held)
    parts = (kept, train_none, held[:count_val], none[:count_val], held[count_val:], none[count_val:])
    links = Links(*(torch.stack([part // n, part % n], dim=1) for part in parts))
    return data.edge_subgraph(stays.to(data.edge_index.device)), links


def _non_edges(n: int, edges: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """`count` different pairs low * n + high, low < high, that are not among the edges, in random order."""
    free = n * (n - 1) // 2 - len(edges)
    if free < count:
        raise ValueError(f"{count} pairs without an edge are needed, the graph has {free}; hide fewer edges")
    found = edges.new_zeros(0)
    while len(found) < count:
        ends = torch.randint(n, (2 * count + 16, 2), generator=generator)
        low, high = ends.aminmax(dim=1)
        drawn = (low * n + high)[low != high]
        drawn = drawn[~torch.isin(drawn, edges)]
        # the first of equal ones, in the order in which they were drawn
        together = torch.cat([found, drawn])
        values, place = together.unique(return_inverse=True)
        first = torch.full_like(values, len(together)).scatter_reduce(0, place, torch.arange(len(together)), "amin")
        found = together[first.sort().values]
    return found[:count]


def link_dot(embeddings: Tensor, labels: Any, split: Any, *, metric: str = "roc_auc", seed: int = 0) -> Scores:
    """Held-out edges against non-edges, ranked by the dot product of the embeddings of their ends; nothing is fitted.

    embeddings: [N, D], of an encoder that was trained on and applied to the graph of `hide_edges`.  labels: not used.
    split: Links, or a list of them.  metric: "roc_auc" or "average_precision"; the other is in `also`.
    """

    def rank(z: Tensor, links: Links) -> tuple[Tensor, Tensor]:
        val, test = (_products(z, links, part).sum(1) for part in ("val", "test"))
        return val[None], test[None]

    return _evaluate("link prediction, dot product", rank, embeddings, split, metric, DOT_PROTOCOL)


def link_hadamard(embeddings: Tensor, labels: Any, split: Any, *, metric: str = "roc_auc", seed: int = 0) -> Scores:
    """Held-out edges against non-edges by logistic regression on the product, column by column, of both embeddings.

    Fitted on the edges that are left and as many non-edges, columns standardised by them, C in 1e-4 ... 1e3 chosen on
    the validation pairs. The rest is as in `link_dot`.  seed: scikit-learn's random_state.
    """

    def rank(z: Tensor, links: Links) -> tuple[Tensor, Tensor]:
        train, val, test = (_products(z, links, part) for part in ("train", "val", "test"))
        fit, use = standardised(train, torch.cat([val, test]))
        y = _truth(links, "train").numpy()
        model = LogisticRegression(max_iter=1000, warm_start=True, random_state=seed)
        made = [model.set_params(C=strength).fit(fit, y).decision_function(use) for strength in STRENGTHS]
        on_val, on_test = torch.stack([torch.from_numpy(one) for one in made]).split([len(val), len(test)], dim=1)
        return on_val, on_test

    return _evaluate("link prediction, Hadamard", rank, embeddings, split, metric, HADAMARD_PROTOCOL)


METRICS = {"roc_auc": roc_auc_score, "average_precision": average_precision_score}


def _evaluate(
    name: str,
    rank: Callable[[Tensor, Links], tuple[Tensor, Tensor]],
    embeddings: Any,
    split: Any,
    metric: str,
    protocol: str,
) -> Scores:
    """Scores of rank(z, links) -> values [S, v] of the validation pairs and [S, t] of the test pairs, edges first."""
    if metric not in METRICS:
        raise ValueError(f"metric must be one of {', '.join(METRICS)}, got {metric!r}")
    z = check_embeddings(embeddings).double()
    several = [split] if isinstance(split, Links) else list(split or [])
    if not several:
        raise ValueError("no links given; make them with graphcl.evaluate.link.hide_edges")
    valid: list[float] = []
    values: dict[str, list[float]] = {one: [] for one in METRICS}
    for links in several:
        _check_links(links, len(z))
        on_val, on_test = rank(z, links)
        scored = [float(METRICS[metric](_truth(links, "val").numpy(), one.numpy())) for one in on_val]
        best = scored.index(max(scored))
        valid.append(scored[best])
        for one, measure in METRICS.items():
            values[one].append(float(measure(_truth(links, "test").numpy(), on_test[best].numpy())))
    others = {one: tuple(found) for one, found in values.items() if one != metric}
    return Scores(name, metric, tuple(values[metric]), tuple(valid), protocol, others)


def _products(z: Tensor, links: Links, part: str) -> Tensor:
    """z_u * z_v of the edges and then of the other pairs of a part, [n, D]."""
    pairs = torch.cat([getattr(links, part), getattr(links, f"{part}_none")])
    return z[pairs[:, 0]] * z[pairs[:, 1]]


def _truth(links: Links, part: str) -> Tensor:
    """1 for the edges and then 0 for the other pairs of a part, [n]."""
    edges, others = len(getattr(links, part)), len(getattr(links, f"{part}_none"))
    return torch.cat([torch.ones(edges), torch.zeros(others)])


def _check_links(links: Links, nodes: int) -> None:
    for part, pairs in links._asdict().items():
        if pairs.dim() != 2 or pairs.shape[1] != 2 or len(pairs) == 0:
            raise ValueError(f"links.{part} must be [n, 2] with n > 0, got {tuple(pairs.shape)}; see hide_edges")
        if int(pairs.min()) < 0 or int(pairs.max()) >= nodes:
            raise ValueError(
                f"links.{part} goes from {int(pairs.min())} to {int(pairs.max())}, embeddings have {nodes} rows; "
                "are the links of another graph?"
            )
