"""`graphcl bench`: every row measures what it names, at tiny sizes; judging, files, and the command."""

import contextlib
import json
import math
import os
import sys
import types
import weakref
from pathlib import Path

import pytest
import torch
from rich.console import Console

from graphcl import cli, process
from graphcl.process import multiplies_bf16

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT / "benchmarks"))

import bench
import growth
import limits
import measure
import rows
import rows_losses
import rows_molecules
from measure import Measured

CPU = torch.device("cpu")
LIBRARIES = {"PyGCL", "graphssl"}  # sides that are there where they are installed
TINY = {
    rows.drop_nodes: {"count": 4},
    rows.subgraph: {"count": 4},
    rows.perturb_edges: {"count": 4},
    rows.mask_attributes: {"count": 4},
    rows.gather: {"count": 4},
    rows.neighbours: {"count": 4, "width": 8},
    rows.neighbours_large: {"nodes": 100, "edges": 400, "width": 8},
    rows.chem_step: {"count": 4, "width": 8},
    rows.chem_data: {"count": 6},
    rows.chem_pretraining: {"count": 6, "width": 8},
    rows.tu_epoch: {"batches": 1},
    rows.grace_epoch: {"hidden": 8},
    rows_losses.infonce_both: {"n": 20, "d": 4},
    rows_losses.ntxent_time: {"n": 20, "d": 4},
    rows_losses.queue: {"count": 4, "k": 30, "d": 4},
    rows_losses.infonce_full: {"n": 30, "d": 4},
    rows_losses.infonce_full_memory: {"n": 30, "d": 4},
    rows_molecules.parsing: {"count": 4},
    rows_molecules.molecule_memory: {"count": 4},
    rows_molecules.pretraining_memory: {"count": 6, "width": 8},
    rows_molecules.alike: {"count": 4, "width": 8},
    rows_molecules.alike_finetune: {"count": 4, "width": 8},
    rows_molecules.alike_embed: {"count": 4, "width": 8},
    growth.graphs: {"counts": (20, 40)},
    growth.nodes: {"counts": (40, 80)},
}
MEASURES = list(dict.fromkeys(row.measure for row in bench.ROWS.values()))


def numba():
    return rows.view_kernels.native() is not None


@pytest.fixture
def brief(monkeypatch, tmp_path):
    """One repeat of everything, no further processes, small products for limits."""
    monkeypatch.setenv("GRAPHCL_CACHE", os.environ.get("GRAPHCL_CACHE", str(tmp_path)))
    for module in (rows_losses, rows_molecules, growth):
        monkeypatch.setattr(module, "in_fresh_process", lambda function, *arguments: function(*arguments))
    for module in (rows, rows_losses, rows_molecules, limits):
        monkeypatch.setattr(
            module,
            "medians",
            lambda sides, device, repeats=1, most=0, peaks=None: measure.medians(sides, device, 1, 0.0, peaks=peaks),
        )
    monkeypatch.setattr(limits, "COPY", 1000)
    monkeypatch.setattr(limits, "ROWS", 100)
    monkeypatch.setattr(limits, "READS", 4600)
    monkeypatch.setattr(limits, "GEMMS", dict.fromkeys(limits.GEMMS, (8, 8, 8)))


@pytest.mark.parametrize("function", MEASURES, ids=lambda function: function.__name__)
def test_every_row_has_its_sides(brief, function):
    found = function(CPU, **TINY[function])
    assert all(math.isfinite(value) and value >= 0 for value in found.sides.values()), found.sides
    memory = any(row.memory for row in bench.ROWS.values() if row.measure is function)
    assert found.peaks.keys() == (found.sides.keys() if memory else set())
    named = {side for row in bench.ROWS.values() if row.measure is function for side in (row.ours, row.theirs)}
    elsewhere = LIBRARIES | {
        side for side, here in (("native", numba()), ("bf16-mixed", multiplies_bf16())) if not here
    }
    assert named - elsewhere <= found.sides.keys()
    assert found.data
    if found.work:
        assert found.work[0] in {"copy", "rows", *limits.GEMMS} and found.work[1] > 0
    if function in (growth.graphs, growth.nodes):
        assert [row["items"] for row in found.details] == list(TINY[function]["counts"])


def test_without_numba_the_torch_path_is_measured(monkeypatch, brief):
    monkeypatch.setattr(rows.view_kernels, "native", lambda: None)
    found = rows.drop_nodes(CPU, count=4)
    assert found.sides.keys() == {"torch", "loop"}
    assert bench.judged("drop_nodes_native", bench.ROWS["drop_nodes_native"], found, {}) is None


def test_libraries_are_measured_where_they_are(monkeypatch, brief):
    """With stand-ins of the same signatures as PyGCL's and graphssl's."""

    class DualBranchContrast:
        def __init__(self, loss, mode, intraview_negs=False):
            assert (loss, mode) == (("tau", 0.2), "L2L")
            self.intraview = intraview_negs

        def __call__(self, h1=None, h2=None):
            return rows.peers.masks_infonce(h1, h2, 0.2, self.intraview)

    def module(name, **contents):
        monkeypatch.setitem(sys.modules, name, types.SimpleNamespace(**contents))

    module("GCL")
    module("GCL.losses", InfoNCE=lambda tau: ("tau", tau))
    module("GCL.models", DualBranchContrast=DualBranchContrast)
    module("graphssl")
    module("graphssl.losses")
    module("graphssl.losses.nt_xent", NTXentLoss=lambda tau: lambda z1, z2: rows_losses.ntxent(z1, z2, tau))
    assert {"PyGCL", "graphssl"} <= rows.grace_epoch(CPU, hidden=8).sides.keys()
    assert {"PyGCL", "graphssl"} <= rows_losses.ntxent_time(CPU, n=9, d=4).sides.keys()
    found = rows_losses.infonce_both(CPU, n=9, d=4)
    assert "PyGCL" in found.sides and "PyGCL" in found.peaks


def test_torch_only_switches_the_kernels_off_and_on_again():
    before = rows.view_kernels.native, rows.store_kernels.native
    with pytest.raises(KeyError), rows.torch_only():
        assert rows.view_kernels.native() is None and rows.store_kernels.native() is None
        raise KeyError
    assert before == (rows.view_kernels.native, rows.store_kernels.native)


def test_sides_take_turns_and_the_median_counts():
    calls = []
    answers = iter([9.0, 9.0, 1.0, 7.0, 30.0, 8.0, 2.0, 6.0])

    def side(name):
        def call():
            calls.append(name)
            return next(answers)

        return call

    found = measure.medians({"a": side("a"), "b": side("b")}, CPU, repeats=3, most=math.inf)
    assert calls == list("abababab")
    assert found == {"a": 2.0, "b": 7.0}  # of 1, 30, 2 and of 7, 8, 6: the first turn does not count
    calls.clear()
    answers = iter([9.0, 5.0, 1.0, 2.0, 4.0])
    assert measure.medians({"loop": side("l"), "b": side("b")}, CPU, repeats=3, most=6.0) == {"loop": 9.0, "b": 2.0}
    assert calls == list("lbbbb"), "a slow side is measured once"
    calls.clear()
    answers = iter([9.0, 8.0, 7.0, 1.0, 2.0])
    assert measure.medians({"a": side("a"), "b": side("b")}, CPU, repeats=1, most=6.0) == {"a": 8.0, "b": 2.0}
    assert calls == list("aabbb"), "of ours the first call may have compiled"


class Odd(Exception):
    """Cannot be read again from what it is written as."""

    def __init__(self, number, word):
        super().__init__(f"{number} {word}")


def fail():
    raise Odd(3, "bonds")


def failing(device):
    return Measured(measure.medians({"ours": lambda: None, "scatter": lambda: 1 / 0}, device, 1, 0.0))


def failing_oddly(device):
    return Measured(measure.medians({"ours": lambda: None, "scatter": fail}, device, 1, 0.0))


def whose(device):
    """Sides that tell their process, and what it would do with huge pages."""
    number = lambda: float(os.getpid())  # noqa: E731
    pages = lambda: float(os.environ.get(process.HUGE_PAGES, "-1"))  # noqa: E731
    return Measured(measure.medians({"ours": number, "scatter": number, "GINConv": pages}, device, 3, 0.0))


def test_what_people_run_has_its_turns_in_a_process_that_is_not_tuned(monkeypatch):
    monkeypatch.delenv(process.HUGE_PAGES, raising=False)
    monkeypatch.setattr(process, "_set_malloc", lambda: None)  # this process goes on as it is
    monkeypatch.setattr(process, "_asked_here", False)
    process.tune_memory()
    with contextlib.closing(measure.Others()) as others:
        assert os.environ[process.HUGE_PAGES] == "1" and others.process is None, "started when it is needed"
        with others.row(whose, CPU):
            sides = whose(CPU).sides
        assert sides["ours"] == os.getpid() and sides["scatter"] == others.process.pid and sides["GINConv"] == -1
        zero = "ZeroDivisionError: division by zero"
        with pytest.raises(RuntimeError, match=zero) as told, others.row(failing, CPU):
            failing(CPU)
        assert "in the process of what people run" in told.value.__notes__[0]
        with pytest.raises(RuntimeError, match="Odd: 3 bonds"), others.row(failing_oddly, CPU):
            failing_oddly(CPU)
        with others.row(whose, CPU):
            assert whose(CPU).sides == sides, "it goes on after a failure"
        assert whose(CPU).sides["scatter"] == os.getpid(), "outside a row all is here"
        others.process.kill()
        ended = r"the process that measures 'scatter' has ended; was there memory"
        with pytest.raises(RuntimeError, match=ended), others.row(whose, CPU):
            whose(CPU)


def holding(device):
    """Sides that tell their process, and hold one and two MB."""
    one = lambda: (torch.ones(1000, 250), float(os.getpid()))[1]  # noqa: E731
    two = lambda: (torch.ones(2000, 250), float(os.getpid()))[1]  # noqa: E731
    peaks = {}
    return Measured(measure.medians({"ours": one, "scatter": two}, device, 1, 0.0, peaks=peaks), peaks=peaks)


def test_the_first_turn_tells_the_memory_of_a_side_wherever_it_has_its_turns():
    assert holding(CPU).peaks == {"ours": 1.0, "scatter": 2.0}
    with contextlib.closing(measure.Others()) as others, others.row(holding, CPU):
        found = holding(CPU)
    assert found.peaks == {"ours": 1.0, "scatter": 2.0}
    assert found.sides["ours"] == os.getpid() != found.sides["scatter"]


def test_a_call_finds_the_memory_of_the_one_before_free():
    results = []

    def call():
        assert not results or results[-1]() is None
        result = torch.ones(3)
        results.append(weakref.ref(result))
        return result

    assert measure.timed(call, 3, CPU) > 0 and len(results) == 3


def test_rows_are_measured_beside_another_process_unless_memory_is_the_same(monkeypatch, brief, tmp_path):
    monkeypatch.setattr(bench, "ROWS", {"a": row(measure=whose, theirs="scatter")})
    file = tmp_path / "bench.json"
    (found,) = bench.run(bench.ROWS, file, CPU, Console(quiet=True))
    assert found["seconds"]["ours"] == os.getpid() != found["seconds"]["scatter"] and found["same_memory"] is False
    (found,) = bench.run(bench.ROWS, None, CPU, Console(quiet=True), same_memory=True)
    assert found["seconds"]["ours"] == os.getpid() == found["seconds"]["scatter"] and found["same_memory"] is True
    with pytest.raises(ValueError, match=r"bench.json: holds rows without --same-memory, as 'a'; give another file"):
        bench.main([], False, file, None, Console(quiet=True), same_memory=True)


def test_every_side_is_ours_or_a_limit_or_what_people_run():
    limit = {"MLPs", "gemms", "products", "1 GB", "cheapest", "every atom"}
    ours = {"ours", "torch", "native", "32", "bf16-mixed", "2+2", "9+3", "dearest", "ours, GIN"}
    assert {row.theirs for row in bench.ROWS.values()} == limit | measure.PEOPLE
    assert {row.ours for row in bench.ROWS.values()} == ours


def test_a_processor_without_bf16_has_no_such_rows(monkeypatch, brief):
    for module in (rows, limits):
        monkeypatch.setattr(module, "multiplies_bf16", lambda: False)
    assert "bf16 gemm 2048x2048x2048" not in limits.limits(CPU)
    found = rows.chem_pretraining(CPU, count=6, width=8)
    assert found.sides.keys() == {"32", "loop"}
    assert bench.judged("chem_bf16", bench.ROWS["chem_bf16"], found, {}) is None
    for module in (rows, limits):
        monkeypatch.setattr(module, "multiplies_bf16", lambda: True)
    assert "bf16 gemm 2048x2048x2048" in limits.limits(CPU)
    assert "bf16-mixed" in rows.chem_pretraining(CPU, count=6, width=8).sides


def test_peak_is_exact():
    z = torch.zeros(1000, 250)  # 1 MB, held before and after
    assert measure.peak(lambda: None, CPU) == 0
    assert measure.peak(lambda: torch.ones(1000, 250), CPU) == 1.0
    assert measure.peak(lambda: [z + 1, z + 2], CPU) == pytest.approx(2.0, abs=0.001)  # and the numbers 1 and 2
    assert measure.peak(lambda: [(z + i).sum() for i in range(5)], CPU) == pytest.approx(1.0, abs=0.001)


def test_a_fresh_process_is_another_one():
    assert measure.in_fresh_process(os.getpid) != os.getpid()
    assert measure.peak_of_process() > 10


def row(**changes):
    return bench.Row(rows_losses.queue, "what", "theirs")._replace(**changes)


@pytest.mark.parametrize(
    ("ours", "theirs", "changes", "ratio", "ok"),
    [
        (2.0, 8.0, {}, 4.0, None),
        (2.0, 8.0, {"floor": 4.0}, 4.0, True),
        (2.0, 8.0, {"floor": 4.1}, 4.0, False),
        (2.2, 2.0, {"floor": 1.1, "at_most": True}, 1.1, True),
        (2.2, 2.0, {"floor": 1.0, "at_most": True}, 1.1, False),
    ],
)
def test_judging(ours, theirs, changes, ratio, ok):
    found = Measured({"ours": ours, "theirs": theirs}, work=("copy", 30.0))
    result = bench.judged("name", row(**changes), found, {"copy": 10.0})
    assert result["ratio"] == pytest.approx(ratio) and result["ok"] is ok
    assert result["of_limit"] == pytest.approx(3.0 / ours)  # the limit needs 3 s
    assert result["seconds"] == found.sides


def test_judging_memory():
    found = Measured({"ours": 1.0, "theirs": 1.0}, work=("copy", 30.0), peaks={"ours": 2.0, "theirs": 6.0})
    result = bench.judged("name", row(memory=True, floor=3.0), found, {"copy": 10.0})
    assert (result["ratio"], result["ok"], result["unit"], result["values"]) == (3.0, True, "MB", found.peaks)
    assert "of_limit" not in result


def test_rows_are_chosen_by_name_or_by_length():
    assert not any(row.long for row in bench.chosen([], full=False).values())
    assert bench.chosen([], full=True) == bench.ROWS
    assert list(bench.chosen(["queue", "growth_nodes"], full=False)) == ["queue", "growth_nodes"]
    with pytest.raises(ValueError, match=r"no row 'infonse'; did you mean 'infonce'\?"):
        bench.chosen(["infonse"], full=False)
    with pytest.raises(ValueError, match=r"no row '\?'; drop_nodes, drop_nodes_native"):
        bench.chosen(["?"], full=False)


def test_the_file_keeps_rows_that_were_not_measured_again(tmp_path, monkeypatch, brief):
    series = [{"items": n, "seconds": n / 10, "before_mb": 5.0, "more_mb": 1.0} for n in (10, 100)]
    made = {
        "a": row(measure=lambda device: Measured({"ours": 1.0, "theirs": 3.0}), floor=2.0, stretch=4.0),
        "b": row(measure=lambda device: Measured({"ours": 1.0, "theirs": 3.0}, "MB", details=series)),
        "c": row(measure=lambda device: Measured({"ours": 1.0})),
    }
    monkeypatch.setattr(bench, "ROWS", made)
    file, out = tmp_path / "bench.json", Console(record=True, width=120)
    bench.run(bench.chosen([], False), file, CPU, out)
    kept = json.loads(file.read_text())
    assert [row["name"] for row in kept["rows"]] == ["a", "b"]
    assert {"name", "ratio", "floor", "ok", "stretch", "unit", "seconds", "commit", "machine"} <= kept["rows"][0].keys()
    assert kept["rows"][0]["ok"] is True and kept["rows"][0]["ratio"] == 3.0
    assert kept["rows"][1]["values"] == {"ours": 1.0, "theirs": 3.0}
    assert {"commit", "machine", "threads", "limits", "device"} <= kept.keys()
    kept["limits"] = dict.fromkeys(kept["limits"], 1e30)
    file.write_text(json.dumps(kept))
    bench.write(file, [], dict.fromkeys(kept["limits"], 1.0), CPU)
    assert json.loads(file.read_text())["limits"] == kept["limits"], "a limit is the most that the machine did"
    file.write_text(json.dumps(kept | {"machine": "another"}))
    bench.write(file, [], dict.fromkeys(kept["limits"], 1.0), CPU)
    assert set(json.loads(file.read_text())["limits"].values()) == {1.0}
    assert (tmp_path / "growth.png").read_bytes().startswith(b"\x89PNG")
    printed = out.export_text()
    assert "3.00 x" in printed and "≥ 2" in printed and "yes" in printed
    assert "not here (native: numba on a CPU; bf16: a processor that has it; libraries: installed): c" in printed

    made["a"] = made["a"]._replace(measure=lambda device: Measured({"ours": 3.0, "theirs": 3.0}))
    bench.run(bench.chosen(["a"], False), file, CPU, Console(quiet=True))
    again = json.loads(file.read_text())["rows"]
    assert [row["ratio"] for row in again] == [1.0, 3.0] and again[0]["ok"] is False
    assert again[1] == kept["rows"][1]


def test_phases_are_written(tmp_path, monkeypatch, brief):
    import phases

    small = rows.molecules().subset(torch.arange(6))
    chem_run = phases.chem_run
    monkeypatch.setattr(phases, "chem_run", lambda device, store: chem_run(device, small, "encoder.hidden=8"))
    monkeypatch.setattr(phases, "tu_graphs", lambda: rows.tu_graphs().subset(torch.arange(6)))
    summary = phases.write_phases(tmp_path / "phases.txt", CPU, steps=2)
    written = (tmp_path / "phases.txt").read_text()
    for phase in phases.PHASES:
        assert summary.count(f"{phase} ") >= 2
    assert "GIN 5 x 300" in written and "GIN 3 x 32" in written and "aten::mm" in written


def test_the_command(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["graphcl", "bench", *arguments])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return stop.value.code or 0, capsys.readouterr()

    code, printed = call("--rows", "que")
    assert code == 2 and "no row 'que'; did you mean 'queue'?" in printed.err
    code, printed = call("--json", "no/where.json")
    assert code == 2 and "--json no/where.json: there is no folder 'no'" in printed.err
    for text in ("nonsense", "[1]", '{"row": 1}'):
        (tmp_path / "other.json").write_text(text)
        code, printed = call("--json", "other.json")
        assert code == 2 and "--json other.json: holds something else than rows" in printed.err
    monkeypatch.setattr(
        bench, "run", lambda wanted, file, device, out, alike: out.print(f"{list(wanted)} {file} {alike}")
    )
    code, printed = call("--rows", "queue,infonce", "--json", "x.json")
    assert code == 0 and "['infonce', 'queue'] x.json False" in printed.out
    code, printed = call("--rows", "infonce,gather", "--same-memory")
    assert code == 0 and "['gather', 'infonce'] None True" in printed.out
    code, printed = call("--rows", "infonce,queue,infonce_memory", "--same-memory")
    assert code == 2 and "--same-memory: queue, infonce_memory is not timed against what people run" in printed.err


def test_every_row_is_explained():
    page = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    for name in bench.ROWS:
        assert f"`{name}`" in page or f"`{name.removesuffix('_native')}`" in page, name
