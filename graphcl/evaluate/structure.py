"""What graphs look like without a neural network: WL-subtree kernel, counts of small subgraphs.

Papers:  Shervashidze et al., 2011, "Weisfeiler-Lehman Graph Kernels", JMLR 12;
         Ahmed et al., 2015, "Efficient Graphlet Counting for Large Networks", arXiv:1506.04322 (the counting formulas)
Whole sets are worked on as one block-diagonal sparse matrix; no loop runs over graphs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor
from torch_geometric.utils import scatter

from graphcl.data.store import GraphStore
from graphcl.evaluate.scores import Scores, evaluate
from graphcl.evaluate.svm import decisions, nested, paper_labels

WL_PROTOCOL, WL_PAPER_PROTOCOL = "wl-svm/clean/1", "wl-svm/paper/1"
HEIGHTS = 6  # 0 to 5
BLOCK = 20_000  # nodes, or edges, whose neighbours are compared at once

Array = NDArray[np.float64]


# --- Weisfeiler-Lehman ------------------------------------------------------------------------------------------------


def wl_features(source: GraphStore, heights: int = HEIGHTS) -> list[sparse.csr_matrix]:
    """How often each colour stands in each graph, [B, colours of that height], for 0 to `heights` - 1 refinements.

    At height 0 two nodes have one colour if their features are equal (all have one where there are none); from then on
    if their colours and the multisets of the colours of those that point to them were. Edge features are not read.
    """
    graph = torch.repeat_interleave(torch.arange(len(source)), source.node_ptr.diff())
    src, dst = _ends(source)
    colour = _first_colours(source.x.cpu())
    generator = torch.Generator().manual_seed(0)
    found = []
    for height in range(heights):
        if height:
            # A multiset is the sum, modulo 2^64, of a random number for each colour; that two different ones meet among
            # N nodes has a probability of about N^2 / 2^65: below 1e-7 for a million.
            own, near = torch.randint(-(2**63), 2**63 - 1, (2, int(colour.max()) + 1), generator=generator)
            key = own[colour].index_add(0, dst, near[colour[src]])
            colour = key.unique(return_inverse=True)[1]
        counts = sparse.coo_matrix((np.ones(len(graph)), (graph.numpy(), colour.numpy())))
        found.append(sparse.csr_matrix(counts, shape=(len(source), int(colour.max()) + 1)))
    return found


def _first_colours(x: Tensor) -> Tensor:
    if x.shape[1] == 0:
        return torch.zeros(len(x), dtype=torch.long)
    return x.unique(dim=0, return_inverse=True)[1]


def wl_grams(source: GraphStore, heights: int = HEIGHTS) -> NDArray[np.float32]:
    """WL-subtree kernels [heights, B, B], normalised: k(i, j) / sqrt(k(i, i) k(j, j)), so 1 on the diagonal."""
    total = np.zeros((len(source), len(source)))
    grams = np.empty((heights, len(source), len(source)), dtype=np.float32)
    for height, counts in enumerate(wl_features(source, heights)):
        total += (counts @ counts.T).toarray()
        length = np.sqrt(total.diagonal())
        grams[height] = total / length[:, None] / length
    return grams


def wl_svm(
    source: GraphStore, split: Any, *, metric: str = "accuracy", seed: int = 0, heights: int = HEIGHTS
) -> Scores:
    """SVM on the normalised WL-subtree kernel: fitted on train, height 0..5 and C in 1e-3..1e3 chosen on validation.

    source.y, split, metric and errors are as in `linear_probe`.  seed: nothing is drawn here.
    """
    grams = wl_grams(source, heights)

    def predict(train: Tensor, y: Tensor, other: Tensor) -> Tensor:
        rows, others = train[:, 0].long().numpy(), other[:, 0].long().numpy()
        pairs = (_cut(gram, rows, others) for gram in grams)
        return torch.cat([decisions(*pair, y.numpy()) for pair in pairs])

    place = torch.arange(len(source), dtype=torch.float64)[:, None]  # the rows of the kernels in place of embeddings
    protocol = WL_PROTOCOL if heights == HEIGHTS else ""
    return evaluate("WL-subtree kernel", predict, place, source.y, split, metric, protocol)


def wl_svm_paper(source: GraphStore, split: Any = None, *, metric: str = "accuracy", seed: int = 0) -> Scores:
    """SVM on the WL-subtree kernel under the rule of `svm_rbf_paper`: height and C by inner folds, split not used."""
    y = paper_labels(source.y, len(source), metric)
    known = np.flatnonzero(y >= 0)
    grams = wl_grams(source)

    def kernels(train: NDArray[np.int64], other: NDArray[np.int64]) -> Iterator[tuple[Array, Array]]:
        return (_cut(gram, known[train], known[other]) for gram in grams)

    return Scores("WL-subtree kernel", "accuracy", nested(kernels, y[known], seed), (), WL_PAPER_PROTOCOL)


def _cut(gram: NDArray[np.float32], rows: NDArray[np.int64], others: NDArray[np.int64]) -> tuple[Array, Array]:
    return gram[np.ix_(rows, rows)].astype(np.float64), gram[np.ix_(others, rows)].astype(np.float64)


# --- small subgraphs --------------------------------------------------------------------------------------------------

STATISTICS = ("nodes", "edges", "path3", "triangle", "path4", "star4", "cycle4", "paw", "diamond", "clique4")
MOMENTS = ("density", "degree mean", "degree deviation", "degree skewness", "degree maximum", "transitivity")


def graph_statistics(source: GraphStore) -> Tensor:
    """A row a graph of what its shape is, [B, 16]: log(1 + counts) of `graphlets`, then `MOMENTS`.

    Degrees are of the simple undirected graph; the largest is as log(1 + degree).
    """
    counts = graphlets(source)
    graph = torch.repeat_interleave(torch.arange(len(source)), source.node_ptr.diff())
    nodes, edges = counts[:, 0].clamp(min=1), counts[:, 1]
    degree = torch.from_numpy(_adjacency(source).sum(1).A1)
    mean = 2 * edges / nodes

    def moment(power: int) -> Tensor:
        away = (degree - mean[graph]) ** power
        return torch.zeros(len(source), dtype=torch.float64).index_add_(0, graph, away) / nodes

    deviation = moment(2).sqrt()
    skewness = torch.where(deviation > 1e-9, moment(3) / deviation.clamp(min=1e-9) ** 3, 0.0)
    largest = scatter(degree, graph, dim_size=len(source), reduce="max")
    density = mean / (nodes - 1).clamp(min=1)
    triples = counts[:, 2] + 3 * counts[:, 3]
    transitivity = 3 * counts[:, 3] / triples.clamp(min=1)
    moments = torch.stack([density, mean, deviation, skewness, largest.log1p(), transitivity], dim=1)
    return torch.cat([counts.log1p(), moments], dim=1).float()


def graphlets(source: GraphStore) -> Tensor:
    """Exact counts of nodes, edges and the connected induced subgraphs of 3 and 4 nodes, float64 [B, 10], `STATISTICS`.

    Of the simple undirected graph: directions, self-loops and repeated edges are left out.
    """
    adjacency = _adjacency(source)
    ends = source.node_ptr.numpy()
    first, rows = 0, []
    while first < len(source):  # some graphs at a time, as the products fill up around hubs
        last = max(int(np.searchsorted(ends, ends[first] + BLOCK, side="right")) - 1, first + 1)
        nodes = slice(int(ends[first]), int(ends[last]))
        rows.append(
            _count(adjacency[nodes, nodes], np.repeat(np.arange(last - first), np.diff(ends[first : last + 1])))
        )
        first = last
    return torch.from_numpy(np.concatenate(rows))


def _count(a: sparse.csr_matrix, graph: NDArray[np.int64]) -> Array:
    """[b, 10] of a block-diagonal adjacency; graph: [n] the block of each node."""
    b = int(graph[-1]) + 1

    def total(values: Array, of: NDArray[np.int64]) -> Array:
        return np.bincount(of, weights=values, minlength=b).astype(np.float64)

    degree = a.sum(1).A1
    squared = (a @ a).tocoo()
    between = squared.row != squared.col
    common, pair_of = squared.data[between], graph[squared.row[between]]  # neighbours that two nodes share
    upper = sparse.triu(a, format="coo")
    u, v, edge_of = upper.row, upper.col, graph[upper.row]
    shared = np.asarray(squared.tocsr()[u, v]).ravel() if len(u) else np.zeros(0)  # triangles on each edge

    triangles = total(shared, edge_of) / 3
    on_node = np.bincount(u, shared, len(graph)) + np.bincount(v, shared, len(graph))  # twice the triangles of a node
    # Subgraphs that need not be induced, then what larger ones hold of them is taken off.
    path3 = total(degree * (degree - 1) / 2, graph)
    star4 = total(degree * (degree - 1) * (degree - 2) / 6, graph)
    path4 = total((degree[u] - 1) * (degree[v] - 1), edge_of) - 3 * triangles
    paw = total(on_node / 2 * (degree - 2), graph)
    cycle4 = total(common * (common - 1) / 2, pair_of) / 4  # from either diagonal, in either direction
    diamond = total(shared * (shared - 1) / 2, edge_of)
    clique4 = total(_cliques(a, degree), graph)

    diamond = diamond - 6 * clique4
    cycle4 = cycle4 - diamond - 3 * clique4
    paw = paw - 4 * diamond - 12 * clique4
    star4 = star4 - paw - 2 * diamond - 4 * clique4
    path4 = path4 - 4 * cycle4 - 2 * paw - 6 * diamond - 12 * clique4
    path3 = path3 - 3 * triangles
    nodes, edges = total(np.ones(len(graph)), graph), total(np.ones(len(u)), edge_of)
    return np.array([nodes, edges, path3, triangles, path4, star4, cycle4, paw, diamond, clique4], dtype=np.float64).T


def _cliques(a: sparse.csr_matrix, degree: Array) -> Array:
    """Cliques of 4 nodes, each counted at one of its nodes, [n].

    Every edge points to its end of larger degree (Chiba and Nishizeki, 1985, SIAM J. Comput. 14), so that hubs have few
    successors: a clique is an edge, and an edge among the successors that its ends share.
    """
    rank = np.lexsort((np.arange(len(degree)), degree)).argsort()
    edges = a.tocoo()
    up = rank[edges.row] < rank[edges.col]
    u, v = edges.row[up], edges.col[up]
    onward = sparse.csr_matrix((np.ones(len(u)), (u, v)), shape=a.shape)
    found = np.zeros(len(degree))
    for start in range(0, len(u), BLOCK):
        block = slice(start, start + BLOCK)
        both = onward[u[block]].multiply(onward[v[block]]).tocsr()
        found += np.bincount(u[block], (both @ onward).multiply(both).sum(1).A1, len(degree))
    return found


def _adjacency(source: GraphStore) -> sparse.csr_matrix:
    """Block-diagonal 0/1 matrix [N, N] of the simple undirected graphs."""
    src, dst = (end.numpy() for end in _ends(source))
    other = src != dst
    rows, columns = np.r_[src[other], dst[other]], np.r_[dst[other], src[other]]
    n = source.num_nodes
    matrix = sparse.coo_matrix((np.ones(len(rows)), (rows, columns)), shape=(n, n)).tocsr()
    matrix.data[:] = 1.0
    return matrix


def _ends(source: GraphStore) -> Sequence[Tensor]:
    """Both ends of every edge, numbered through all graphs."""
    shift = torch.repeat_interleave(source.node_ptr[:-1], source.edge_ptr.diff())
    return source.src.cpu() + shift, source.dst.cpu() + shift
