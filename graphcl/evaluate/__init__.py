"""Frozen evaluation: embeddings, labels and a split in, scores out."""

from graphcl.evaluate.embed import embed
from graphcl.evaluate.knn import knn
from graphcl.evaluate.probe import linear_probe
from graphcl.evaluate.protocols import PROTOCOLS
from graphcl.evaluate.scores import Scores, SeedScores, over_seeds
