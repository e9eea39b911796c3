"""Bad input, as a hostile or an unlucky user would give it: a readable message or a sound result, never nonsense."""

import json
import math
import resource
import warnings

import networkx as nx
import numpy as np
import pytest
import torch
from torch_geometric.data import Data, HeteroData

from graphcl import ConfigError, build, embed, fit, load_config
from graphcl.data.files import from_networkx
from graphcl.data.store import GraphStore
from graphcl.evaluate.compare import raw_features
from graphcl.pictures import draw_curve

NODES = ["data.split=random", "train.epochs=2", "encoder.hidden=8", "encoder.out=4"]


@pytest.fixture
def graphcl(command, monkeypatch, tmp_path):
    """Calls the command in an empty folder, without progress bars; a traceback is a failure."""
    monkeypatch.chdir(tmp_path)

    def call(*args):
        code, text = command(*args, "--quiet")
        assert "Traceback" not in text
        return code, text

    return call


def graph(n=30, seed=0, **changed):
    """Arrays of a small random graph with features and two classes."""
    rng = np.random.default_rng(seed)
    ends = rng.integers(0, n, (2, 3 * n))
    arrays = {
        "edge_index": np.concatenate([ends, ends[::-1]], axis=1),
        "x": rng.random((n, 5)).astype(np.float32),
        "y": rng.integers(0, 2, n),
    }
    arrays |= changed
    return {key: value for key, value in arrays.items() if value is not None}


def test_a_sound_file_works(graphcl, tmp_path):
    np.savez(tmp_path / "g.npz", **graph())
    code, text = graphcl("pretrain", "grace", "data.name=g.npz", *NODES)
    assert code == 0 and "untrained" in text, text


def test_without_labels_it_pretrains_and_embeds(graphcl, tmp_path):
    np.savez(tmp_path / "g.npz", **graph(y=None))
    code, text = graphcl("pretrain", "grace", "data.name=g.npz", *NODES)
    assert code == 0 and "no classes to score" in text, text
    assert (tmp_path / "runs/grace/embedding.png").exists()
    np.savez(tmp_path / "values.npz", **graph(y=np.linspace(0, 5, 30)))
    code, text = graphcl("pretrain", "grace", "data.name=values.npz", "run.dir=values", *NODES)
    assert code == 0 and "no classes to score" in text, text


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_features_that_are_not_finite(graphcl, tmp_path, value):
    arrays = graph()
    arrays["x"][7, 2] = value
    np.savez(tmp_path / "g.npz", **arrays)
    code, text = graphcl("pretrain", "grace", "data.name=g.npz", *NODES)
    assert code == 2 and "[7, 2]" in text and "finite" in text, text
    data = Data(x=torch.from_numpy(arrays["x"]), edge_index=torch.from_numpy(arrays["edge_index"]))
    with pytest.raises(ValueError, match=r"data.x\[7, 2\] is (nan|inf); features must be finite"):
        build(load_config("grace", NODES), data)


@pytest.mark.parametrize("end", [-1, 30])
def test_edges_that_lead_out_of_the_graph(graphcl, tmp_path, end):
    arrays = graph()
    arrays["edge_index"][1, 4] = end
    np.savez(tmp_path / "g.npz", **arrays)
    code, text = graphcl("pretrain", "grace", "data.name=g.npz", *NODES)
    assert code == 2 and str(end) in text and "0 to 29" in text, text
    data = Data(x=torch.from_numpy(arrays["x"]), edge_index=torch.from_numpy(arrays["edge_index"]))
    with pytest.raises(ValueError, match=r"edge_index\[:, 4\] is .* nodes are numbered 0 to 29"):
        build(load_config("grace", NODES), data)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"y": np.zeros(5, dtype=int)}, r"data\.y is a ndarray; make it a tensor"),
        ({"edge_attr": torch.ones(3, 2)}, r"data\.edge_attr has 3 rows for 4 edges; give one an edge"),
        (
            {"edge_weight": torch.tensor([1.0, 2.0, -0.5, 1.0])},
            r"data\.edge_weight\[2\] is -0\.5; encoder 'gcn' divides",
        ),
        ({"edge_weight": torch.tensor([1.0, torch.nan, 1.0, 1.0])}, r"data\.edge_weight\[1\] is nan"),
        ({"train_mask": torch.ones(4, dtype=torch.bool)}, r"data\.train_mask has 4 rows for 5 nodes"),
        ({"x": torch.ones(0, 3), "edge_index": torch.zeros(2, 0, dtype=torch.long)}, "data has no nodes"),
    ],
)
def test_graphs_at_hand_that_do_not_fit_themselves(parts, message):
    ends = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
    with pytest.raises(ValueError, match=message):
        build(load_config("dgi", NODES), Data(**{"x": torch.ones(5, 3), "edge_index": ends} | parts))
    with pytest.raises(ValueError, match="data is a HeteroData, graphs of one kind"):
        build(load_config("dgi", NODES), HeteroData())


def test_gin_takes_negative_weights():
    ends = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
    signed = Data(x=torch.rand(5, 3), edge_index=ends, edge_weight=torch.tensor([1.0, -2.0, -0.5, 1.0]))
    run = build(load_config("dgi", ["data.split=random", "encoder={name: gin, hidden: 8}", "train.epochs=2"]), signed)
    assert math.isfinite(fit(run, progress=False)["loss"])


def test_integer_features_that_are_no_categories_are_numbers():
    ends = torch.tensor([[0, 1], [1, 0]])
    graphs = [Data(x=torch.tensor([[i % 3 - 1, i % 2, 10**4], [0, 1, i]]), edge_index=ends) for i in range(4)]
    rows = raw_features(GraphStore.from_graphs(graphs))
    assert rows.tolist() == [[i % 3 - 1, 1 - i % 2, 1 + i % 2, 10**4 + i] for i in range(4)]
    assert raw_features(graphs[1]).tolist() == [[1, 0, 1, 10**4], [1, 0, 1, 1]]


def test_one_class_only(graphcl, tmp_path):
    np.savez(tmp_path / "g.npz", **graph(y=np.zeros(30, dtype=int)))
    code, text = graphcl("pretrain", "grace", "data.name=g.npz", *NODES)
    assert code == 2 and "class" in text, text


def test_features_missing(graphcl, tmp_path):
    np.savez(tmp_path / "g.npz", **graph(x=None))
    code, text = graphcl("pretrain", "grace", "data.name=g.npz", *NODES)
    assert code == 2 and "data.features=degree" in text, text
    code, text = graphcl("pretrain", "grace", "data.name=g.npz", "data.features=degree", *NODES)
    assert code == 0 and "replaces" not in text, text


def test_a_pickle_in_an_npz_is_refused(graphcl, tmp_path):
    np.savez(tmp_path / "g.npz", **graph(), bomb=np.array([print], dtype=object))
    code, text = graphcl("pretrain", "grace", "data.name=g.npz", *NODES)
    assert code == 2 and "g.npz" in text, text


@pytest.mark.parametrize("method", ["grace", "bgrl", "dgi", "gae", "moco-nodes", "pcl"])
@pytest.mark.parametrize(
    "edges",
    [np.zeros((2, 0), dtype=int), np.array([[3] * 6, [4] * 6]), np.array([[0, 0, 1], [0, 1, 1]])],
    ids=["no edge", "one edge six times", "self-loops"],
)
def test_odd_graphs_train_to_finite_embeddings(method, edges):
    arrays = graph()
    data = Data(x=torch.from_numpy(arrays["x"]), edge_index=torch.from_numpy(edges), y=torch.from_numpy(arrays["y"]))
    extra = {
        "moco-nodes": ["method.queue=16"],
        "pcl": ["method.queue=16", "method.clusters=[2,3]", "method.warmup_epochs=1"],
    }
    size = [] if method == "dgi" else ["encoder.out=4"]
    settings = ["data.split=random", "train.epochs=3", "encoder.hidden=8", "train.warmup=0", *size]
    run = build(load_config(method, [*settings, *extra.get(method, [])]), data)
    fit(run, progress=False)
    z = embed(run.method, run.data)
    assert len(z) == 30 and z.isfinite().all()


@pytest.mark.parametrize("method", ["graphcl", "moco", "infograph", "adgcl"])
def test_odd_sets_of_graphs_train_to_finite_embeddings(method):
    lonely, empty, loop = nx.empty_graph(1), nx.empty_graph(4), nx.Graph([(0, 0), (0, 1)])
    graphs = [lonely, empty, loop, nx.cycle_graph(5), nx.star_graph(6), nx.path_graph(2), lonely]
    settings = ["data.split=random", "train.epochs=3", "encoder.hidden=8", "data.batch_size=3", "data.features=ones"]
    extra = ["method.queue=5"] if method == "moco" else []
    store = from_networkx(graphs, y=[0, 1, 0, 1, 0, 1, 0])
    store = store.with_x(torch.ones(store.num_nodes, 1))
    run = build(load_config(method, [*settings, *extra]), store)
    fit(run, progress=False)  # the last batch is one graph of one node
    z = embed(run.method, run.data)
    assert len(z) == 7 and z.isfinite().all()


def test_one_graph_cannot_be_contrasted_with_itself():
    store = from_networkx([nx.cycle_graph(5)])
    with pytest.raises(ConfigError, match="contrasts graphs with each other, but there is one only; give more graphs"):
        build(load_config("graphcl"), store.with_x(torch.ones(5, 1)))
    with pytest.raises(ConfigError, match=r"a batch has one graph \(data.batch_size=1\); use data.batch_size >= 2"):
        build(load_config("graphcl", ["data.batch_size=1"]), from_networkx([nx.cycle_graph(5)] * 3))


def test_labels_of_one_class_are_told_the_way_out(graphcl):
    np.savez("g.npz", **graph(y=np.where(np.arange(30) < 25, 1, -1)))
    code, text = graphcl("pretrain", "grace", "data.name=g.npz", *NODES)
    assert code == 2 and "all labels that are known are of class 1 (-1 is unknown)" in text
    assert "leave the labels out to train without scores" in text
    np.savez("g.npz", **graph(y=None))
    assert graphcl("pretrain", "grace", "data.name=g.npz", *NODES)[0] == 0


def test_the_home_folder_is_meant_by_a_tilde(graphcl, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    np.savez("g.npz", **graph())
    assert graphcl("pretrain", "grace", "data.name=g.npz", "run.dir=~/runs/a", *NODES)[0] == 0
    assert (tmp_path / "home/runs/a/config.yaml").is_file() and not (tmp_path / "~").exists()


def test_embeddings_that_are_all_one_are_still_drawn(graphcl, tmp_path):
    ring = np.stack([np.arange(60), (np.arange(60) + 1) % 60])
    np.savez(tmp_path / "g.npz", edge_index=ring, x=np.ones((60, 3), np.float32), y=np.arange(60) % 2)
    code, text = graphcl("pretrain", "grace", "data.name=g.npz", *NODES)
    assert code == 0 and (tmp_path / "runs/grace/embedding.png").exists(), text


def test_a_path_that_looks_like_a_formula_is_drawn_as_it_is(graphcl, tmp_path):
    np.savez(tmp_path / "g$_$.npz", **graph())
    code, text = graphcl("pretrain", "grace", "data.name=g$_$.npz", "run.dir=r$_$", *NODES)
    assert code == 0 and (tmp_path / "r$_$/embedding.png").exists(), text


def test_a_damaged_line_of_the_metrics_is_named(graphcl, tmp_path):
    metrics = tmp_path / "metrics.jsonl"
    for text, told in (
        ('{"step": 1, "loss": 2.0}\n\x00\x00\n', r"metrics\.jsonl: line 2 is not the values of a step: b'\\x00\\x00'"),
        ("[1]\n", r"line 1 is not the values of a step: b'\[1\]'; take the line out, and .* --resume"),
        ("", r"metrics\.jsonl is empty, so there is no curve to draw"),
    ):
        metrics.write_text(text)
        with pytest.raises(ValueError, match=told):
            draw_curve(metrics, tmp_path / "curve.png")


def test_graphs_at_hand_get_the_features_that_the_config_names():
    run = build(
        load_config("graphcl", ["data.split=random"]), [Data(edge_index=torch.tensor([[0], [1]]), num_nodes=2)] * 5
    )
    assert torch.equal(run.data.x, torch.ones(10, 1))
    run = build(load_config("grace", NODES), Data(x=torch.ones(4, 4), edge_index=torch.tensor([[0], [1]])))
    assert torch.equal(run.data.x.sum(1), torch.ones(4))
    with pytest.raises(ValueError, match=r"data.x must be \[N, F\]"):
        build(load_config("grace", NODES), Data(x=torch.ones(4), edge_index=torch.tensor([[0], [1]])))
    with pytest.raises(ValueError, match=r"edge_index must be int64 \[2, E\]"):
        build(load_config("grace", NODES), Data(x=torch.ones(4, 1), edge_index=torch.rand(2, 3)))
    with pytest.raises(ValueError, match="3 labels for 4 nodes"):
        build(
            load_config("grace", NODES), Data(x=torch.ones(4, 1), edge_index=torch.tensor([[0], [1]]), y=torch.ones(3))
        )


def test_rates_at_their_ends_train():
    arrays = graph()
    data = Data(x=torch.from_numpy(arrays["x"]), edge_index=torch.from_numpy(arrays["edge_index"]))
    for rate in (0.0, 1.0):
        config = load_config("grace", [*NODES, f"views.0.0.drop={rate}", f"views.1.1.rate={rate}"])
        assert np.isfinite(fit(build(config, data), progress=False)["loss"])


def test_a_full_disk_leaves_the_run_resumable(graphcl, tmp_path):
    np.savez(tmp_path / "g.npz", **graph(n=200))
    short = [option for option in NODES if "hidden" not in option]
    args = ["pretrain", "grace", "data.name=g.npz", *short, "encoder.hidden=64", "run.checkpoint_every=1"]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
        try:
            code, text = graphcl(*args)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert code == 2 and "checkpoint" in text, text
    code, text = graphcl(*args, "--resume")
    assert code == 0, text
    lines = (tmp_path / "runs/grace/metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2]


def test_a_loss_that_is_not_finite_stops_and_says_where():
    arrays = graph()
    data = Data(x=torch.from_numpy(arrays["x"]) * 1e30, edge_index=torch.from_numpy(arrays["edge_index"]))
    with pytest.raises(RuntimeError, match="step 1"):
        fit(build(load_config("gae", [*NODES, "data.normalize=false"]), data), progress=False)
