"""The contrastive core on images: SimCLR and MoCo train a small CNN on handwritten digits without labels.

Nothing here knows of graphs. The same `ntxent`, `queue_infonce`, `FeatureQueue` and `ema_update` that pretrain a GNN
bring a CNN above its untrained self. The digits (1,797 images of 8 x 8) come with scikit-learn.

    python examples/digits.py
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from graphcl.heads import mlp
from graphcl.momentum import FeatureQueue, ema_update
from graphcl.objectives import ntxent, queue_infonce

BATCH, LR, TAU = 64, 2e-3, 0.2


def digits() -> tuple[Tensor, Tensor]:
    """Images [1797, 1, 8, 8] with values in 0..1 and their labels."""
    images, labels = load_digits(return_X_y=True)
    return torch.from_numpy(images).float().reshape(-1, 1, 8, 8) / 16, torch.from_numpy(labels)


def cnn(generator: torch.Generator) -> nn.Sequential:
    """[B, 1, 8, 8] -> [B, 128], no normalisation layers; weights drawn from the generator."""
    network = nn.Sequential(
        *(nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(64, 128, 3, padding=1), nn.ReLU(), nn.AdaptiveMaxPool2d(1), nn.Flatten()),
    )
    return drawn(network, generator)


def drawn(network: nn.Sequential, generator: torch.Generator) -> nn.Sequential:
    """The network with weights drawn from the generator (He), and zero biases."""
    for name, parameter in network.named_parameters():
        if parameter.dim() > 1:
            nn.init.kaiming_normal_(parameter, generator=generator)
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)
    return network


def projector(generator: torch.Generator) -> nn.Sequential:
    """[B, 128] -> [B, 64]. Without batch norm MoCo's query learns to flee the mean of the queue."""
    return drawn(mlp(128, 128, 64, batch_norm=True), generator)


def view(images: Tensor, generator: torch.Generator) -> Tensor:
    """Every image turned, stretched, sheared and moved a little, with some noise."""
    jitter = 0.15 * torch.randn(len(images), 2, 3, generator=generator)
    grid = F.affine_grid(torch.eye(2, 3) + jitter, list(images.shape), align_corners=False)
    moved = F.grid_sample(images, grid, align_corners=False)
    return moved + 0.05 * torch.randn(moved.shape, generator=generator)


def batches(count: int, epochs: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Shuffled index batches of every epoch."""
    for _ in range(epochs):
        yield from torch.randperm(count, generator=generator).split(BATCH)


def simclr(images: Tensor, epochs: int, generator: torch.Generator) -> nn.Module:
    """An encoder trained by SimCLR."""
    encoder, head = cnn(generator), projector(generator)
    optimizer = torch.optim.Adam([*encoder.parameters(), *head.parameters()], lr=LR)
    for ids in batches(len(images), epochs, generator):
        z1 = head(encoder(view(images[ids], generator)))
        z2 = head(encoder(view(images[ids], generator)))
        loss = ntxent(z1, z2, tau=TAU)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return encoder


def moco(images: Tensor, epochs: int, generator: torch.Generator) -> nn.Module:
    """An encoder trained by MoCo."""
    encoder, head = cnn(generator), projector(generator)
    online = nn.Sequential(encoder, head)
    target = copy.deepcopy(online).requires_grad_(False)
    queue = FeatureQueue(512, 64)
    optimizer = torch.optim.Adam(online.parameters(), lr=LR)
    for ids in batches(len(images), epochs, generator):
        q = online(view(images[ids], generator))
        k = target(view(images[ids], generator))
        loss = queue_infonce(q, k, queue.items, tau=TAU, ids=ids, queue_ids=queue.ids)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        ema_update(target, online, 0.9)
        queue.enqueue(k, ids)
    return encoder


def untrained(images: Tensor, epochs: int, generator: torch.Generator) -> nn.Module:
    """The very encoder that the others start from."""
    return cnn(generator)


METHODS: dict[str, Callable[[Tensor, int, torch.Generator], nn.Module]] = {
    "untrained": untrained,
    "simclr": simclr,
    "moco": moco,
}


def probe(features: Tensor, labels: Tensor, generator: torch.Generator, per_class: int = 5, repeats: int = 10) -> float:
    """Accuracy (%) of a linear classifier with few labels on all other rows, mean over draws of those labels."""
    scores = []
    for _ in range(repeats):
        order = torch.randperm(len(labels), generator=generator)
        train = torch.cat([order[labels[order] == c][:per_class] for c in labels.unique()])
        rest = torch.ones(len(labels), dtype=torch.bool)
        rest[train] = False
        classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        classifier.fit(features[train].numpy(), labels[train].numpy())
        scores.append(100 * classifier.score(features[rest].numpy(), labels[rest].numpy()))
    return statistics.mean(scores)


def score(method: str, epochs: int, seed: int) -> float:
    """Probe accuracy (%) of the encoder that a method gives. One seed: the same first weights and the same labels."""
    images, labels = digits()
    encoder = METHODS[method](images, epochs, torch.Generator().manual_seed(seed))
    return probe(encoder(images).detach(), labels, torch.Generator().manual_seed(seed))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    images, labels = digits()
    raw = [probe(images.flatten(1), labels, torch.Generator().manual_seed(seed)) for seed in range(arguments.seeds)]
    print(f"{'5 labels a class':<18}{'accuracy %':>12}{'std':>8}{'s a seed':>10}")
    print(f"{'raw pixels':<18}{statistics.mean(raw):>12.1f}{statistics.pstdev(raw):>8.1f}")
    for method in METHODS:
        start = time.perf_counter()
        scores = [score(method, arguments.epochs, seed) for seed in range(arguments.seeds)]
        seconds = (time.perf_counter() - start) / arguments.seeds
        print(f"{method:<18}{statistics.mean(scores):>12.1f}{statistics.pstdev(scores):>8.1f}{seconds:>10.1f}")


if __name__ == "__main__":
    main()
