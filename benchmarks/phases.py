"""Where the time of a pretraining step goes: gather, views, encoder, loss, backward, optimizer."""

from __future__ import annotations

from pathlib import Path

import torch
from rows import chem_run, molecules, tu_graphs, tu_run
from torch.profiler import ProfilerActivity, profile, record_function

from graphcl.objectives import infonce
from graphcl.state import Run
from graphcl.trainer import make_optimizer

PHASES = ("gather", "views", "encoder", "loss", "backward", "optimizer")


def write_phases(file: Path, device: torch.device, steps: int = 10) -> str:
    """Profile some steps of two pretrainings; what was found goes to `file`, and is returned without the operators."""
    runs = {
        "GIN 5 x 300 on molecules, batch 256": chem_run(device, molecules()),
        f"GIN 3 x 32 on {tu_graphs().name}, batch 128": tu_run(device, tu_graphs()),
    }
    summaries, texts = [], []
    for title, run in runs.items():
        profiler = profiled(run, device, steps)
        averages = profiler.key_averages()
        on_device = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
        seconds = {event.key: event.cpu_time_total / steps / 1e6 for event in averages if event.key in PHASES}
        whole = sum(seconds.values())
        lines = [f"{phase:10}{1e3 * seconds[phase]:10.2f} ms {seconds[phase] / whole:7.1%}" for phase in PHASES]
        summaries.append("\n".join([f"{title}, {1e3 * whole:.1f} ms a step under the profiler", *lines]))
        texts.append(f"{summaries[-1]}\n\n{averages.table(sort_by=on_device, row_limit=25)}")
    file.write_text("\n\n".join(texts) + "\n", encoding="utf-8")
    return "\n\n".join(summaries)


def profiled(run: Run, device: torch.device, steps: int) -> profile:
    """The steps as the trainer makes them, each phase in a range of its own."""
    method = run.method.to(device).train()
    optimizer = make_optimizer(list(method.parameters()), run.config.train, fused=True)

    def step(batches) -> None:
        with record_function("gather"):
            batch = next(batches).to(device)
        with record_function("views"):
            views = [method.view1(batch), method.view2(batch)]
        with record_function("encoder"):
            z1, z2 = (method.project(method.encode(view)) for view in views)
        with record_function("loss"):
            loss = infonce(z1, z2, method.tau)
        with record_function("backward"):
            optimizer.zero_grad()
            loss.backward()
        with record_function("optimizer"):
            optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    def batches():
        epoch = 0
        while True:
            yield from run.loader.epoch(epoch)
            epoch += 1

    source = batches()
    for _ in range(2):
        step(source)
    activities = [ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * (device.type == "cuda")]
    with profile(activities=activities) as profiler:
        for _ in range(steps):
            step(source)
    return profiler
