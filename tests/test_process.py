"""Memory and threads."""

import os
import subprocess
import sys

import pytest
import torch

from graphcl import build, fit, load_config, process
from graphcl.process import HUGE_PAGES, set_threads, tune_memory, untuned, usable_cores, warn_of_slow_bf16


@pytest.fixture(autouse=True)
def as_before():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_freed_memory_is_kept_for_the_next_tensor():
    """Page faults of a process of its own that makes the same large tensor again and again."""
    code = (
        "import resource, sys\n"
        "from graphcl.process import tune_memory\n"
        "if sys.argv[1] == 'tuned': tune_memory()\n"
        "import torch\n"
        "x = torch.ones(16_000_000)\n"
        "for _ in range(20): y = x * 2\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "for _ in range(20): y = x * 2\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)\n"
    )
    clean = {key: value for key, value in os.environ.items() if key not in (HUGE_PAGES, "MALLOC_MMAP_MAX_")}
    faults = [
        int(subprocess.run([sys.executable, "-c", code, how], env=clean, capture_output=True, check=True).stdout)
        for how in ("plain", "tuned")
    ]
    assert faults[1] < faults[0] / 10


def test_a_process_started_untuned_has_what_the_user_gave(monkeypatch):
    monkeypatch.setattr(process, "_set_malloc", lambda: None)
    monkeypatch.setattr(process, "_asked_here", False)
    monkeypatch.setenv(HUGE_PAGES, "1")
    tune_memory()
    with untuned():
        assert os.environ[HUGE_PAGES] == "1", "the user's own"
    monkeypatch.delenv(HUGE_PAGES)
    tune_memory()
    with pytest.raises(KeyError), untuned():
        assert HUGE_PAGES not in os.environ
        raise KeyError
    assert os.environ[HUGE_PAGES] == "1"


def test_bf16_on_a_processor_without_it_is_warned_of(monkeypatch, recwarn):
    monkeypatch.setattr(process, "multiplies_bf16", lambda: True)
    warn_of_slow_bf16("bf16-mixed", "cpu")
    monkeypatch.setattr(process, "multiplies_bf16", lambda: False)
    warn_of_slow_bf16("32", "cpu")
    warn_of_slow_bf16("bf16-mixed", "cuda")
    assert not recwarn
    run = build(load_config("dgi", ["train.precision=bf16-mixed", "train.max_steps=1", "train.device=cpu"]))
    with pytest.warns(UserWarning, match=r"bf16-mixed on a CPU without bfloat16 instructions .* take precision 32"):
        fit(run, progress=False)


def test_huge_pages_are_asked_for_but_not_against_the_users_word(monkeypatch):
    monkeypatch.delenv(HUGE_PAGES, raising=False)
    tune_memory()
    assert os.environ[HUGE_PAGES] == "1"
    monkeypatch.setenv(HUGE_PAGES, "0")
    tune_memory()
    assert os.environ[HUGE_PAGES] == "0"


@pytest.mark.parametrize("text, most", [("150000 100000\n", 2), ("50000 100000\n", 1), ("max 100000\n", None)])
def test_a_container_gets_its_quota(tmp_path, monkeypatch, text, most):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    quota = tmp_path / "cpu.max"
    quota.write_text(text)
    assert usable_cores(quota) == (most or 64)
    assert usable_cores(tmp_path / "nothing") == 64


def test_threads_are_shared_among_processes(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("graphcl.process.usable_cores", lambda: 8)
    assert set_threads() == torch.get_num_threads() == 8
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    assert set_threads() == 2
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "16")
    assert set_threads() == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert set_threads() == 3
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert set_threads() == 1
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")  # torchrun wrote that 1 itself
    assert set_threads() == 4
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "0")
    assert set_threads() == 1
    assert set_threads(1) == torch.get_num_threads() == 1


def test_no_threads_at_all_are_refused():
    with pytest.raises(ValueError, match="threads must be at least 1, got 0; leave it out"):
        set_threads(0)
