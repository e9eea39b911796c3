"""The core is blind to graphs: the same functions train a CNN on images, and nothing of graphs is imported for it."""

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

# In a process of its own, as other tests import what must not be imported here.
CODE = """
import json, sys
sys.path.insert(0, sys.argv[1])
import torch
torch.set_num_threads(1)
from digits import METHODS, score
found = {method: [score(method, 3, seed) for seed in (0, 1)] for method in METHODS}
found["again"] = score("moco", 1, 0), score("moco", 1, 0), score("moco", 1, 1)
graphs = "torch_geometric", "networkx", "augment", "graphcl.encoders"
found["graphs"] = [name for name in graphs if name in sys.modules]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def found() -> dict:
    command = [sys.executable, "-c", CODE, str(Path(__file__).parent.parent / "examples")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("method", ["simclr", "moco"])
def test_the_core_trains_a_cnn_on_images(found, method):
    # One seed: the same first weights and the same labels.
    gains = [after - before for after, before in zip(found[method], found["untrained"], strict=True)]
    assert min(gains) > 0 and statistics.mean(gains) > 3, found


def test_a_seed_replays(found):
    first, again, other = found["again"]
    assert first == again != other


def test_nothing_of_graphs_is_imported(found):
    assert found["graphs"] == []
