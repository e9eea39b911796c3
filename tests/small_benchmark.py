"""A benchmark of two methods in two steps, and rows as it makes them."""

import json
from pathlib import Path

from graphcl.benchmark_config import Task
from graphcl.benchmark_run import run_benchmark

SMALL = ["encoder.hidden=8", "encoder.sparse_input=false", "train.max_steps=2", "data.split=random", "data.repeats=3"]


def run(path, **options):
    return run_benchmark(path, Path("results/small.jsonl"), 1, **{"retry": False, "quiet": True} | options)


def task(config, baseline=None):
    return Task("linear/clean", "linear/clean", config, baseline)


def row(task, **changes):
    config = json.loads(json.dumps(task.config.model_dump(mode="json")))
    return {"hash": task.hash, "protocol": task.protocol, "version": 1, "config": config} | changes
