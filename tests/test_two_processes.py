"""Two processes under torchrun give what one gives: loss, gradient (as weights after steps of SGD) and queue.

The functions below run once here, in one process, and once in each of two; all of the latter in one launch.
"""

from __future__ import annotations

import atexit
import copy
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from small_run import small_config
from torch import Tensor
from torch_geometric.data import Data

from graphcl.checkpoint import CheckpointError, load_checkpoint
from graphcl.data.loaders import Loader
from graphcl.data.store import GraphStore
from graphcl.encoders import GIN, Readout
from graphcl.methods.adgcl import ADGCL
from graphcl.methods.graphcl import GraphCL
from graphcl.methods.method import Method
from graphcl.methods.moco import MoCo
from graphcl.runlog import NonFiniteLoss
from graphcl.state import Run
from graphcl.trainer import Stopped, fit


def store() -> GraphStore:
    """22 random graphs: two batches of 8 and one of 6."""
    draw = torch.Generator().manual_seed(5)
    graphs = []
    for n in torch.randint(2, 9, (22,), generator=draw).tolist():
        edge_index = torch.randint(0, n, (2, 2 * n), generator=draw)
        graphs.append(Data(x=torch.randn(n, 5, generator=draw), edge_index=edge_index))
    return GraphStore.from_graphs(graphs)


def rolled(data: Data) -> Data:
    """A view without chance, since two processes draw other numbers than one."""
    view = copy.copy(data)
    view.x = data.x.roll(1, dims=1) * 0.9
    return view


def same(data: Data) -> Data:
    return data


def gin() -> GIN:
    return GIN(5, 8, layers=2, batch_norm=False)


class Game(ADGCL):
    """Two players; the edges' noise is replaced by a constant."""

    def edge_weight(self, data: Data) -> Tensor:
        h = self.view_encoder(data)
        return torch.sigmoid(self.score(torch.cat(list(h[data.edge_index]), dim=-1)).squeeze(-1))


class Spoiled(GraphCL):
    """Rank 1 gets a nan in the fifth step."""

    count = 0

    def loss(self, data: Data, group: str = "model") -> dict[str, Tensor]:
        self.count += 1
        bad = self.count == 5 and os.environ.get("RANK") == "1"
        return {"loss": super().loss(data, group)["loss"] * (float("nan") if bad else 1.0)}


class Interrupting(GraphCL):
    """Rank 1 alone gets a Ctrl-C in the fourth step."""

    count = 0

    def loss(self, data: Data, group: str = "model") -> dict[str, Tensor]:
        self.count += 1
        if self.count == 4 and os.environ.get("RANK") == "1":
            os.kill(os.getpid(), 2)
        return super().loss(data, group)


MAKE = {
    "infonce": lambda: GraphCL(gin(), Readout("sum"), same, rolled),
    "ntxent": lambda: GraphCL(gin(), Readout("mean"), same, rolled, objective="ntxent"),
    "graphcl_code": lambda: GraphCL(gin(), Readout("mean"), same, rolled, objective="graphcl_code"),
    "queue": lambda: MoCo(gin(), same, rolled, Readout("mean"), proj_dim=6, queue=13, momentum=0.9),
    "game": lambda: Game(gin(), gin(), Readout("mean")),
    "spoiled": lambda: Spoiled(gin(), Readout("mean"), same, rolled),
    "interrupting": lambda: Interrupting(gin(), Readout("mean"), same, rolled),
}
EQUAL = {
    "infonce": {},
    "ntxent": {"train__accumulate": 2},
    "graphcl_code": {"train__clip": 0.1},
    "queue": {"train__accumulate": 2, "train__clip": 1.0},
    "game": {},
}


def make_run(name: str, **settings: Any) -> Run:
    torch.manual_seed(3)
    method: Method = MAKE[name]()
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    loader = Loader(store(), 8, rank=rank, world=world)
    config = small_config(**{"train__optimizer": "sgd", "train__epochs": 3} | settings)
    return Run(config, store(), [], method, loader)


def in_two_processes(folder: Path) -> None:
    """What torchrun starts: every case, with the final weights of both ranks."""
    rank = int(os.environ["RANK"])
    left = folder / f"left{rank}"
    atexit.register(lambda: left.write_text(str(not dist.is_initialized())))  # the last to run: it is the first here
    for name, settings in EQUAL.items():
        run = make_run(name, **settings)
        fit(run, folder / name, progress=False)
        torch.save(run.method.state_dict(), folder / name / f"rank{rank}.pt")

    fit(make_run("queue"), folder / "whole", progress=False)
    try:
        fit(make_run("interrupting"), folder / "stopped", progress=False)
    except Stopped as stopped:
        (folder / "stopped" / f"rank{rank}").write_text(str(stopped))
    try:
        fit(make_run("spoiled", run__log_every=1), folder / "spoiled", progress=False)
    except NonFiniteLoss as error:
        (folder / "spoiled" / f"rank{rank}").write_text(str(error))

    fit(make_run("queue", train__max_steps=4), folder / "cut", progress=False)
    fit(make_run("queue"), folder / "cut", resume=True, progress=False)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    script = folder / "script.py"
    script.write_text(
        "import sys\nfrom pathlib import Path\nimport torch\ntorch.set_num_threads(1)\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        f"from test_two_processes import in_two_processes\nin_two_processes(Path({str(folder)!r}))\n"
    )
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(script)]
    done = subprocess.run(
        launch, capture_output=True, text=True, timeout=300, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


def metrics(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name", list(EQUAL))
def test_two_processes_equal_one(two, tmp_path, name):
    run = make_run(name, **EQUAL[name])
    start = copy.deepcopy(run.method.state_dict())
    fit(run, tmp_path, progress=False)
    one, other = metrics(tmp_path), metrics(two / name)
    assert len(one) == len(other) > 4
    for ours, theirs in zip(one, other, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-6, abs=1e-6)
    ranks = [torch.load(two / name / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]
    for key, value in run.method.state_dict().items():
        for state in ranks:
            torch.testing.assert_close(
                state[key], value, rtol=1e-6, atol=1e-6, msg=lambda text, key=key: f"{key}: {text}"
            )
    moved = [key for key, value in run.method.state_dict().items() if (value - start[key]).abs().max() > 1e-4]
    assert len(moved) > 8  # the weights did move, by far more than they may differ


def test_the_queue_holds_the_keys_of_both(two):
    ranks = [torch.load(two / "queue" / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]
    order = [batch.graph_id for epoch in range(3) for batch in Loader(store(), 8).epoch(epoch)]
    for state in ranks:
        place = int(state["queue.pointer"])
        written = torch.cat([state["queue.ids"][place:], state["queue.ids"][:place]])
        assert written.tolist() == torch.cat(order)[-13:].tolist()


def test_a_run_in_two_processes_resumes_to_the_bit(two):
    whole, cut = two / "whole", two / "cut"
    assert (whole / "metrics.jsonl").read_bytes() == (cut / "metrics.jsonl").read_bytes()
    assert (whole / "model.safetensors").read_bytes() == (cut / "model.safetensors").read_bytes()
    assert json.loads((whole / "environment.json").read_text())["processes"] == 2


def test_every_process_leaves_its_group_before_it_ends(two):
    """Threads of gloo that are still there when Python ends abort the process, now and then."""
    assert [(two / f"left{rank}").read_text() for rank in (0, 1)] == ["True", "True"]


def test_ctrl_c_in_one_process_stops_both_at_the_same_step(two):
    texts = {(two / "stopped" / f"rank{rank}").read_text() for rank in (0, 1)}
    assert texts == {"stopped at step 4; go on with --resume"}
    assert load_checkpoint(two / "stopped" / "checkpoints")[1]["place"]["step"] == 4


def test_a_nan_in_one_process_stops_both(two):
    first, second = ((two / "spoiled" / f"rank{rank}").read_text() for rank in (0, 1))
    assert "loss is nan at step 5 (in another process)" in first
    assert "loss is nan at step 5 (epoch 2, batch 1, ids " in second
    assert len(metrics(two / "spoiled")) == 4


def test_one_process_does_not_go_on_with_a_run_of_two(two):
    with pytest.raises(CheckpointError, match="cannot resume with 1 processes what ran with 2; start as many"):
        fit(make_run("queue", train__epochs=9), two / "whole", resume=True, progress=False)
