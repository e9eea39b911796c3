"""Molecules in scikit-learn: SMILES into a pipeline, pretrained without labels on all of them, probed with few.

The blood-brain barrier set (BBBP, 2,039 molecules) comes with the package. Half of the molecules have no label here:
the encoder learns from all, the logistic regression above it from the labelled half alone.

    python examples/estimators.py
    python examples/estimators.py --pretrained NAME     a shipped encoder, or a folder, instead of pretraining here
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from graphcl import GraphEmbedder, load_data


def main(arguments: Sequence[str] | None = None) -> float:
    """Prints and returns the ROC-AUC on molecules whose labels were not seen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pretrained", help="name or folder of pretrained weights")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--molecules", type=int, default=2039, help="use the first ones only")
    options = parser.parse_args(arguments)

    store = load_data("bbbp")
    smiles, y = list(store.smiles)[: options.molecules], store.y.flatten().numpy()[: options.molecules]
    labelled, others, y_labelled, y_others = train_test_split(smiles, y, test_size=0.5, random_state=0, stratify=y)

    if options.pretrained:
        embedder = GraphEmbedder.from_pretrained(options.pretrained)
    else:
        embedder = GraphEmbedder(hidden=64, epochs=options.epochs).fit(smiles)

    # The embeddings are made once; what is searched is what comes after them.
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    search = GridSearchCV(probe, {"logisticregression__C": [0.001, 0.01, 0.1, 1.0]}, scoring="roc_auc", cv=3)
    search.fit(embedder.transform(labelled), y_labelled)
    score = float(roc_auc_score(y_others, search.predict_proba(embedder.transform(others))[:, 1]))
    print(f"ROC-AUC on {len(others)} molecules: {score:.3f} ({search.best_params_})")
    return score


if __name__ == "__main__":
    main()
