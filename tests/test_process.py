"""Huge pages and threads."""

import os

import pytest
import torch

from graphcl.process import HUGE_PAGES, set_threads, usable_cores, use_huge_pages


@pytest.fixture(autouse=True)
def as_before():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_huge_pages_are_asked_for_but_not_against_the_users_word(monkeypatch):
    monkeypatch.delenv(HUGE_PAGES, raising=False)
    use_huge_pages()
    assert os.environ[HUGE_PAGES] == "1"
    monkeypatch.setenv(HUGE_PAGES, "0")
    use_huge_pages()
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
    assert set_threads(1) == torch.get_num_threads() == 1


def test_no_threads_at_all_are_refused():
    with pytest.raises(ValueError, match="threads must be at least 1, got 0; leave it out"):
        set_threads(0)
