"""Two gloo processes on this machine against one process that has all rows."""

import copy
import warnings
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from graphcl.distributed import gather, gather_ids, gather_views
from graphcl.heads import mlp
from graphcl.momentum import FeatureQueue
from graphcl.objectives import infonce, ntxent, queue_infonce

WORLD, ROWS = 2, 6  # ROWS of each process
OBJECTIVES = {
    "infonce": infonce,
    "one direction": lambda z1, z2, **keys: infonce(z1, z2, symmetric=False, **keys),
    "ntxent": ntxent,
}


def network() -> nn.Module:
    torch.manual_seed(0)
    return mlp(4, 8, 5, activation="elu").double()


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    n = WORLD * ROWS
    x1, x2 = (torch.randn(n, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    return x1, x2, torch.randperm(100, generator=generator)[:n]


def gradients(model: nn.Module) -> list[Tensor]:
    return [parameter.grad.clone() for parameter in model.parameters()]


def queue_steps(model: nn.Module, x1: Tensor, x2: Tensor, ids: Tensor) -> tuple[list[Tensor], FeatureQueue]:
    """Three losses against a queue that wraps around, keys and ids gathered before they are enqueued."""
    queue, losses = FeatureQueue(2 * WORLD * ROWS - 3, 5).double(), []
    for _ in range(3):
        q, k = model(x1), model(x2)
        losses.append(queue_infonce(q, k, queue.items, ids=ids, queue_ids=queue.ids))
        queue.enqueue(gather(k.detach())[0], gather_ids(ids))
    return losses, queue


def process(rank: int, folder: str) -> None:
    warnings.simplefilter("error", FutureWarning)  # our collectives are not the deprecated ones
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=WORLD)
    x1, x2, ids = (x[rank * ROWS : (rank + 1) * ROWS] for x in inputs())
    found: dict[str, object] = {}
    for name, objective in OBJECTIVES.items():
        model = nn.parallel.DistributedDataParallel(network())
        z1, z2 = model(torch.cat([x1, x2])).chunk(2)
        loss = objective(z1, z2, **gather_views(z1, z2))
        loss.backward()
        found[name] = (loss.detach(), gradients(model))

    model = nn.parallel.DistributedDataParallel(network())
    losses, queue = queue_steps(model, x1, x2, ids)
    torch.stack(losses).sum().backward()
    found["queue"] = (torch.stack(losses).detach(), gradients(model), queue.state_dict())

    # Rows that differ in number, one process without any; row i of the whole is worth i.
    for counts in ([3, 1], [0, 2]):
        start = sum(counts[:rank])
        own = torch.arange(start, start + counts[rank], dtype=torch.float64)[:, None].repeat(1, 2).requires_grad_()
        rows, offset = gather(own)
        (rows * torch.arange(1.0, sum(counts) + 1)[:, None]).sum().backward()
        found[f"counts {counts}"] = (rows.detach(), offset, own.grad)
    found["kinds"] = [
        gather(torch.tensor([[rank, 1]]).to(kind))[0] for kind in (torch.int64, torch.bool, torch.bfloat16)
    ]
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    folder = str(tmp_path_factory.mktemp("gloo"))
    torch.multiprocessing.start_processes(process, (folder,), nprocs=WORLD, start_method="spawn")
    return [torch.load(Path(folder) / f"{rank}.pt", weights_only=True) for rank in range(WORLD)]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_two_processes_give_the_loss_and_gradient_of_one(found, name):
    x1, x2, _ = inputs()
    model = network()
    loss = OBJECTIVES[name](model(x1), model(x2))
    loss.backward()
    torch.testing.assert_close(sum(rank[name][0] for rank in found) / WORLD, loss.detach(), rtol=0, atol=1e-9)
    for rank in found:
        torch.testing.assert_close(rank[name][1], gradients(model), rtol=0, atol=1e-9)


def test_two_processes_give_the_queue_of_one(found):
    model = network()
    losses, queue = queue_steps(model, *inputs())
    torch.stack(losses).sum().backward()
    assert losses[1] > 0
    mean = sum(rank["queue"][0] for rank in found) / WORLD
    torch.testing.assert_close(mean, torch.stack(losses).detach(), rtol=0, atol=1e-6)  # the queue stores float32
    for rank in found:
        torch.testing.assert_close(rank["queue"][1], gradients(model), rtol=0, atol=1e-6)
        torch.testing.assert_close(rank["queue"][2], dict(queue.state_dict()), rtol=0, atol=1e-6)


@pytest.mark.parametrize("counts", [[3, 1], [0, 2]])
def test_processes_may_have_different_numbers_of_rows(found, counts):
    whole = torch.arange(sum(counts), dtype=torch.float64)[:, None].repeat(1, 2)
    for number, rank in enumerate(found):
        rows, offset, gradient = rank[f"counts {counts}"]
        assert torch.equal(rows, whole) and offset == sum(counts[:number])
        # every process adds its gradient: row i of the whole has the weight i + 1, once for each process
        assert torch.equal(gradient, WORLD * (whole[offset : offset + counts[number]] + 1))


def test_ids_masks_and_half_precision_are_gathered(found):
    for rank in found:
        for rows in rank["kinds"]:
            assert torch.equal(rows, torch.tensor([[0, 1], [1, 1]]).to(rows.dtype))


def test_one_process_gathers_nothing():
    z1, z2 = torch.randn(3, 2, requires_grad=True), torch.randn(3, 2)
    rows, offset = gather(z1)
    assert rows is z1 and offset == 0
    assert gather_views(z1, z2) == {}
    ids = torch.arange(3)
    assert gather_ids(ids) is ids
    assert torch.equal(infonce(z1, z2, **gather_views(z1, z2)), infonce(z1, z2))


def test_leaving_out_the_gather_is_not_the_same(found):
    """The comparison above would notice: without the other process's negatives the gradient differs."""
    x1, x2, _ = inputs()
    halves, model = [network() for _ in range(WORLD)], copy.deepcopy(network())
    for half, a, b in zip(halves, x1.chunk(WORLD), x2.chunk(WORLD), strict=True):
        infonce(half(a), half(b)).backward()
    infonce(model(x1), model(x2)).backward()
    mean = [sum(grads) / WORLD for grads in zip(*map(gradients, halves), strict=True)]
    assert max((a - b).abs().max() for a, b in zip(mean, gradients(model), strict=True)) > 1e-3
