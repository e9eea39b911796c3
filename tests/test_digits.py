"""The core is blind to graphs: the same functions train a CNN on images, and nothing of graphs is imported for it."""

import os
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import sys
sys.path.insert(0, {examples!r})
import torch
torch.set_num_threads(1)
from digits import score
for seed in {seeds}:
    print(score({method!r}, {epochs}, seed))
graphs = [name for name in ("torch_geometric", "networkx", "augment", "graphcl.encoders") if name in sys.modules]
assert not graphs, graphs
"""
SEEDS = (0, 1)


def scores(method: str, epochs: int) -> list[float]:
    examples = str(Path(__file__).parent.parent / "examples")
    code = CODE.format(examples=examples, method=method, epochs=epochs, seeds=SEEDS)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return [float(line) for line in done.stdout.split()]


@pytest.fixture(scope="module")
def untrained() -> list[float]:
    return scores("untrained", 0)


@pytest.mark.parametrize("method", ["simclr", "moco"])
def test_the_core_trains_a_cnn_on_images(method, untrained):
    trained = scores(method, epochs=5)
    # One seed: the same first weights and the same labels.
    gains = [after - before for after, before in zip(trained, untrained, strict=True)]
    assert min(gains) > 0 and statistics.mean(gains) > 4, (trained, untrained)


def test_a_seed_replays():
    assert scores("moco", epochs=1) == scores("moco", epochs=1)
