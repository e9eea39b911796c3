"""A run that was cut and resumed equals one that was not, to the bit: weights, buffers, optimizers, metrics."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from small_methods import METHODS, batch_for, make, ring
from small_run import Momentum, Rows, small_run
from torch import Tensor
from torch_geometric.data import Data

from augment import Compose, DropFeatures
from graphcl.checkpoint import CheckpointError, list_checkpoints, load_checkpoint, save_checkpoint
from graphcl.data.loaders import Loader
from graphcl.data.store import GraphStore
from graphcl.methods.method import Method
from graphcl.state import contents
from graphcl.trainer import fit

SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "accumulate": {"train__accumulate": 2, "train__clip": 0.5},
    "schedule": {"train__warmup": 3, "train__schedule": "cosine", "train__optimizer": "adamw"},
    "half": {"train__precision": "bf16-mixed", "train__optimizer": "sgd"},
}


class Cut(RuntimeError):
    pass


class Game(Momentum):
    """Momentum with a second player."""

    def __init__(self) -> None:
        super().__init__()
        self.views = torch.nn.Linear(6, 6)

    def groups(self) -> Any:
        return {"encoder": self.encoder.parameters(), "views": self.views.parameters()}

    def loss(self, data: Any, group: str = "encoder") -> dict[str, Tensor]:
        seen = Data(x=self.views(data.x), graph_id=data.graph_id)
        values = super().loss(seen, group)
        return values if group == "encoder" else {"loss": -values["loss"] + seen.x.square().mean()}


class Dying(Rows):
    """Rows whose `after`-th batch, counted over all epochs, cannot be had."""

    after = 0

    def epoch(self, e: int, start: int = 0) -> Any:
        for number, batch in enumerate(super().epoch(e, start), start=start):
            if e * len(self) + number >= self.after:
                raise Cut
            yield batch


class OwnDraws(Momentum):
    """Momentum whose view draws from a generator of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.view = Compose([DropFeatures(0.5, generator=torch.Generator().manual_seed(7))])

    def loss(self, data: Any, group: str = "model") -> dict[str, Tensor]:
        return super().loss(Data(x=self.view(Data(x=data.x)).x, graph_id=data.graph_id), group)


class DyingLoader(Loader):
    """Fails after five batches."""

    def epoch(self, e: int, start: int = 0) -> Any:
        for number, batch in enumerate(super().epoch(e, start), start=start):
            if e * len(self) + number >= 5:
                raise Cut
            yield batch


def cut_run(after: int, folder: Path, make: Any, **settings: Any) -> None:
    loader = Dying()
    loader.after = after
    with pytest.raises(Cut):
        fit(small_run(make, loader, **settings), folder, progress=False)


def assert_same(one: Any, two: Any, where: str = "") -> None:
    """Equal types, values and bits, all the way down."""
    assert type(one) is type(two), where
    if isinstance(one, Tensor):
        assert one.dtype == two.dtype and torch.equal(one, two), where
    elif isinstance(one, dict):
        assert list(one) == list(two), where
        for key in one:
            assert_same(one[key], two[key], f"{where}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(two), where
        for i, (a, b) in enumerate(zip(one, two, strict=True)):
            assert_same(a, b, f"{where}.{i}")
    else:
        assert one == two, where


def assert_same_runs(one: Path, two: Path) -> None:
    assert (one / "metrics.jsonl").read_bytes() == (two / "metrics.jsonl").read_bytes()
    assert (one / "model.safetensors").read_bytes() == (two / "model.safetensors").read_bytes()
    states = [load_checkpoint(folder / "checkpoints")[1] for folder in (one, two)]
    for state in states:
        assert state["place"].pop("seconds") > 0  # time alone is not the same
    assert_same(*states)


# --- cut in the process -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings, after",
    [*(("plain", after) for after in (1, 3, 4, 9, 10, 11, 19))]
    + [(settings, after) for settings in list(SETTINGS)[1:] for after in (5, 11)],
)
def test_cut_and_resumed_equals_never_cut(tmp_path, settings, after):
    fit(small_run(**SETTINGS[settings]), tmp_path / "whole", progress=False)
    cut_run(after, tmp_path / "cut", Momentum, **SETTINGS[settings])
    if not list_checkpoints(tmp_path / "cut" / "checkpoints"):
        with pytest.warns(UserWarning, match="has no checkpoint yet; starting from the beginning"):
            fit(small_run(**SETTINGS[settings]), tmp_path / "cut", resume=True, progress=False)
    else:
        fit(small_run(**SETTINGS[settings]), tmp_path / "cut", resume=True, progress=False)
    assert_same_runs(tmp_path / "whole", tmp_path / "cut")


def test_the_seconds_of_all_calls_are_kept(tmp_path):
    cut_run(11, tmp_path, Momentum)
    before = load_checkpoint(tmp_path / "checkpoints")[1]["place"]["seconds"]
    last = fit(small_run(), tmp_path, resume=True, progress=False)["seconds"]
    found = json.loads((tmp_path / "environment.json").read_text(encoding="utf-8"))["seconds"]
    assert found == pytest.approx(before + last) and min(before, last) > 0


@pytest.mark.parametrize("name", list(METHODS))
def test_every_method_resumes(tmp_path, name):
    draw = torch.Generator().manual_seed(1)
    many = "batch" in (given := batch_for(make(name)))
    source = GraphStore.from_graphs(given.to_data_list()) if many else ring(16, draw)
    settings = {"train__epochs": 4 if many else 8, "train__optimizer": "adamw", "train__clip": 1.0}
    size = 4 if many else None
    fit(small_run(lambda: make(name), Loader(source, size), **settings), tmp_path / "whole", progress=False)
    with pytest.raises(Cut):
        dying = DyingLoader(source, size)
        fit(small_run(lambda: make(name), dying, **settings), tmp_path / "cut", progress=False)
    again = small_run(lambda: make(name, seed=9), Loader(source, size), **settings)  # other weights: all are loaded
    fit(again, tmp_path / "cut", resume=True, progress=False)
    assert_same_runs(tmp_path / "whole", tmp_path / "cut")


@pytest.mark.parametrize("after", [4, 13])
def test_several_players_resume_too(tmp_path, after):
    settings = {"train__group_lr": {"views": 0.003}}
    fit(small_run(Game, **settings), tmp_path / "whole", progress=False)
    cut_run(after, tmp_path / "cut", Game, **settings)
    fit(small_run(Game, **settings), tmp_path / "cut", resume=True, progress=False)
    assert_same_runs(tmp_path / "whole", tmp_path / "cut")


def test_what_the_checkpoint_keeps_is_needed(tmp_path):
    """The method above is no easy case: without the random state, resuming gives other weights."""
    fit(small_run(), tmp_path / "whole", progress=False)
    cut_run(10, tmp_path / "cut", Momentum)
    newest = list_checkpoints(tmp_path / "cut" / "checkpoints")[-1]
    state = torch.load(newest, weights_only=True)
    state["rng"][0]["cpu"] = torch.Generator().manual_seed(5).get_state()
    torch.save(state, newest)
    fit(small_run(), tmp_path / "cut", resume=True, progress=False)
    with pytest.raises(AssertionError):
        assert_same_runs(tmp_path / "whole", tmp_path / "cut")


def test_a_truncated_newest_checkpoint_costs_time_but_no_bit(tmp_path):
    fit(small_run(), tmp_path / "whole", progress=False)
    cut_run(10, tmp_path / "cut", Momentum)
    newest = list_checkpoints(tmp_path / "cut" / "checkpoints")[-1]
    newest.write_bytes(newest.read_bytes()[:-3000])
    with pytest.warns(UserWarning, match=r"passed over step-00000009.ckpt: .* Going on from step-00000006.ckpt"):
        fit(small_run(), tmp_path / "cut", resume=True, progress=False)
    assert_same_runs(tmp_path / "whole", tmp_path / "cut")


def test_other_cadences_of_logging_and_saving_change_nothing(tmp_path):
    fit(small_run(), tmp_path / "whole", progress=False)
    cut_run(12, tmp_path / "cut", Momentum, run__checkpoint_every=5, run__log_every=100)
    fit(small_run(), tmp_path / "cut", resume=True, progress=False)
    for name in ("metrics.jsonl", "model.safetensors"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "cut" / name).read_bytes()


def test_a_longer_run_goes_on_from_a_finished_one(tmp_path):
    fit(small_run(train__epochs=6), tmp_path / "whole", progress=False)
    fit(small_run(train__epochs=2), tmp_path / "two", progress=False)
    summary = fit(small_run(train__epochs=6), tmp_path / "two", resume=True, progress=False)
    assert summary["steps"] == 30
    for name in ("metrics.jsonl", "model.safetensors"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_resuming_a_finished_run_changes_nothing(tmp_path):
    first = fit(small_run(), tmp_path, progress=False)
    names = ("metrics.jsonl", "model.safetensors")
    before = [(tmp_path / name).read_bytes() for name in names]
    again = fit(small_run(), tmp_path, resume=True, progress=False)
    assert [(tmp_path / name).read_bytes() for name in names] == before
    assert again["steps"] == first["steps"] and again["loss"] == first["loss"] and again["items_per_second"] == 0


# --- killed -----------------------------------------------------------------------------------------------------------

KILLS = """
import os, random, signal, sys, time, warnings
sys.path[:0] = [sys.argv[2]]
import torch
torch.set_num_threads(1)
from pathlib import Path
from small_run import small_run
from graphcl.trainer import fit

warnings.filterwarnings("error", message=".*(passed over|shorter).*")  # a kill leaves nothing damaged
settings = {"train__epochs": 8, "run__checkpoint_every": 2, "run__log_every": 3}
draw, kills, folder = random.Random(int(sys.argv[3])), 0, Path(sys.argv[1])
seconds = fit(small_run(**settings), folder / "whole", progress=False)["seconds"]

def train():
    if kills % 2:  # in the midst of a write: half of the file, the whole file without its name, a name just given
        name, left = draw.choice(["fsync", "replace", "unlink"]), draw.randint(1, 8)
        real = getattr(os, name)
        def dying(*args, **more):
            nonlocal left
            left -= 1
            if left == 0:
                if name == "fsync" and os.readlink(f"/proc/self/fd/{args[0]}").endswith(".tmp"):
                    os.ftruncate(args[0], os.fstat(args[0]).st_size // 2)
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **more)
        setattr(os, name, dying)
    fit(small_run(**settings), folder / "killed", resume=(folder / "killed").exists(), progress=False)

while True:
    child = os.fork()
    if child == 0 and kills == 12:  # enough
        fit(small_run(**settings), folder / "killed", resume=True, progress=False)
        os._exit(0)
    if child == 0:
        train()
        os._exit(0)
    if not kills % 2 and kills < 12:
        time.sleep(draw.uniform(0.0, seconds / 2))
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    if status == 0:
        break
    assert os.WIFSIGNALED(status), "the run failed by itself"
    kills += 1
print(kills)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="forks, and reads /proc")
def test_killed_at_any_moment_and_resumed_equals_never_killed(tmp_path):
    script = tmp_path / "kills.py"
    script.write_text(KILLS)
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path), str(Path(__file__).parent), "1"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 6, "too few kills to show anything"
    assert_same_runs(tmp_path / "whole", tmp_path / "killed")
    assert not list(tmp_path.rglob("*.tmp"))


# --- refused ----------------------------------------------------------------------------------------------------------


def test_a_changed_config_is_refused(tmp_path):
    cut_run(10, tmp_path, Momentum)
    with pytest.raises(CheckpointError) as caught:
        fit(
            small_run(train__lr=0.1, train__weight_decay=0.1, train__accumulate=2, run__keep=3),
            tmp_path,
            resume=True,
            progress=False,
        )
    message = str(caught.value)
    assert (
        "the config has changed: train.weight_decay was 0.0 and is now 0.1; train.accumulate was 1 and is now 2."
        in message
    )
    assert "keep" not in message and "run.dir=" in message


def test_data_of_another_size_is_refused_also_with_as_many_batches(tmp_path):
    def of(graphs: int, nodes: int = 3) -> Any:
        run = small_run(loader=Rows(batches=20))
        edges = torch.tensor([[0, 1], [1, 0]])
        run.data = GraphStore.from_graphs([Data(x=torch.ones(nodes, 1), edge_index=edges) for _ in range(graphs)])
        return run

    fit(run := of(99), tmp_path, progress=False)
    more = "the data has changed: 99 graphs, 297 nodes, 198 edges then, 108 graphs, 324 nodes, 216 edges now"
    with pytest.raises(CheckpointError, match=more) as caught:
        fit(of(108), tmp_path, resume=True, progress=False)
    assert "Put it back as it was" in str(caught.value) and "run.dir=" in str(caught.value)
    with pytest.raises(CheckpointError, match="99 graphs, 396 nodes, 198 edges now"):
        fit(of(99, nodes=4), tmp_path, resume=True, progress=False)
    fit(of(99), tmp_path, resume=True, progress=False)

    _, state = load_checkpoint(tmp_path / "checkpoints")
    del state["data"], state["contents"]  # as earlier versions wrote it
    save_checkpoint(tmp_path / "checkpoints", state["place"]["step"], state, keep=1)
    fit(run, tmp_path, resume=True, progress=False)


@pytest.mark.parametrize("what", ["edge", "order", "feature"])
def test_as_many_other_graphs_are_refused(what, tmp_path):
    def of(kinds: tuple[int, ...] = (6, 7), ends: tuple[int, int] = (0, 1), order: int = 1) -> Any:
        run = small_run(loader=Rows(batches=4))
        graphs = [
            Data(x=torch.tensor([[kinds[0]]]).expand(2, 1), edge_index=torch.tensor([[0, 1], [1, 0]])),
            Data(x=torch.tensor([[kinds[1]]]).expand(3, 1), edge_index=torch.tensor([ends, ends[::-1]])),
        ]
        run.data = GraphStore.from_graphs(graphs[::order])
        return run

    fit(of(), tmp_path, progress=False)
    other = {"edge": of(ends=(1, 2)), "order": of(order=-1), "feature": of(kinds=(6, 8))}[what]
    with pytest.raises(CheckpointError, match="2 graphs, 5 nodes, 4 edges as before, but other ones, or in another"):
        fit(other, tmp_path, resume=True, progress=False)
    fit(of(), tmp_path, resume=True, progress=False)


def test_what_two_machines_may_round_apart_is_the_same_data():
    edges = torch.tensor([[0, 1], [1, 0]])
    one, other = (Data(x=torch.full((2, 1), 0.1 + more), edge_index=edges) for more in (0.0, 1e-7))
    assert contents(one) == contents(other) != contents(Data(x=one.x, edge_index=edges.flip(0)[:, :1]))


def test_a_long_store_is_looked_at_in_parts(monkeypatch):
    monkeypatch.setattr("graphcl.state.LOOKED_AT", 10)
    graphs = [Data(x=torch.tensor([[i]]), edge_index=torch.zeros(2, 0, dtype=torch.long)) for i in range(95)]
    store = GraphStore.from_graphs(graphs)
    changed = [store.x.clone() for _ in range(2)]
    changed[0][10], changed[1][11] = 200, 200  # every tenth is looked at
    assert contents(store.with_x(changed[0])) != contents(store) == contents(store.with_x(changed[1]))


def test_a_changed_data_set_is_refused(tmp_path):
    cut_run(10, tmp_path, Momentum)
    with pytest.raises(CheckpointError, match="the data has changed: 5 batches an epoch then, 6 now"):
        fit(small_run(loader=Rows(6)), tmp_path, resume=True, progress=False)


def test_a_shorter_run_is_refused(tmp_path):
    cut_run(10, tmp_path, Momentum)
    with pytest.raises(CheckpointError, match=r"at step 9, the config ends at step 5; raise train.epochs"):
        fit(small_run(train__epochs=1), tmp_path, resume=True, progress=False)
    with pytest.raises(CheckpointError, match=r"at step 9, the config ends at step 3; raise train.max_steps"):
        fit(small_run(train__max_steps=3), tmp_path, resume=True, progress=False)


def test_another_model_is_refused(tmp_path):
    cut_run(10, tmp_path, Momentum)
    with pytest.raises(CheckpointError, match="the checkpoint is of another model: has the unknown"):
        fit(small_run(lambda: OneLayer()), tmp_path, resume=True, progress=False)
    with pytest.raises(CheckpointError, match=r"centre is \[6\], but this model has \[9\]"):
        fit(small_run(lambda: Momentum(width=9)), tmp_path, resume=True, progress=False)


class OneLayer(Method):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = torch.nn.Sequential(torch.nn.Linear(6, 8))


def test_a_generator_of_a_view_goes_on_where_it_was(tmp_path):
    fit(small_run(OwnDraws), tmp_path / "whole", progress=False)
    cut_run(10, tmp_path / "cut", OwnDraws)
    fit(small_run(OwnDraws), tmp_path / "cut", resume=True, progress=False)
    assert_same_runs(tmp_path / "whole", tmp_path / "cut")


def test_nothing_to_resume_is_refused(tmp_path):
    with pytest.raises(
        ValueError, match="resume=True goes on from the checkpoints of a folder; give fit the run's folder"
    ):
        fit(small_run(), resume=True, progress=False)
    with pytest.raises(CheckpointError, match=r"nothing to resume: there is no folder .*nowhere"):
        fit(small_run(), tmp_path / "nowhere", resume=True, progress=False)


def test_another_format_is_refused(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    torch.save({"format": 99}, tmp_path / "checkpoints" / "step-00000001.ckpt")
    with pytest.raises(CheckpointError, match="of another version of graphcl"):
        fit(small_run(), tmp_path, resume=True, progress=False)


def test_metrics_that_were_deleted_are_warned_about(tmp_path):
    cut_run(10, tmp_path, Momentum)
    (tmp_path / "metrics.jsonl").unlink()
    with pytest.warns(UserWarning, match=r"metrics.jsonl is shorter than it was at the checkpoint"):
        fit(small_run(), tmp_path, resume=True, progress=False)
