"""For all tests: helpers beside this file are importable, one thread, a fixed seed, the path of the real data."""

from __future__ import annotations

import os
import sys
from pathlib import Path

for library in ("OMP", "OPENBLAS", "MKL"):  # before numpy: two workers with two threads each wait for one another
    os.environ.setdefault(f"{library}_NUM_THREADS", "1")

import pytest
import torch

# tests/augment would pass for a package of that name, so the root comes before tests/, in child processes too.
TESTS = Path(__file__).parent
sys.path[:0] = [str(TESTS.parent), str(TESTS)]
os.environ["PYTHONPATH"] = os.pathsep.join([str(TESTS.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def graphcl_data() -> Path:
    """Root of the raw public data sets; read-only."""
    root = os.environ.get("GRAPHCL_DATA")
    if not root:
        pytest.skip("needs real data sets: set GRAPHCL_DATA to the folder that holds TUDataset/, Planetoid/, ...")
    return Path(root)


@pytest.fixture
def command(capsys, monkeypatch):
    """The command line in this process: (arguments) -> exit code and all that it prints, in lines of 200."""
    from graphcl import cli, cli_molecules

    for module in (cli, cli_molecules):
        monkeypatch.setattr(module.out, "width", 200)

    def call(*args) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["graphcl", *map(str, args)])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return call
