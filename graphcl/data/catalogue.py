"""The data sets known by name. Imports no torch: the command line lists them in an instant."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Literal, NamedTuple

Kind = Literal["planetoid", "amazon", "coauthor", "wikics", "webkb", "tu", "molecule", "ogb"]


class Entry(NamedTuple):
    """What is known of a data set before it is read."""

    name: str  # as it is asked for
    level: Literal["node", "graph"]
    kind: Kind
    canonical: str  # as its files and folders are called
    size: int  # nodes of one graph, or graphs of many (rows of the file for molecules)
    classes: int  # 0: regression
    tasks: int
    metric: Literal["accuracy", "roc_auc", "prc_auc", "rmse"]
    bundled: bool
    description: str


def _node(name: str, kind: Kind, canonical: str, size: int, classes: int, about: str) -> Entry:
    return Entry(name, "node", kind, canonical, size, classes, 1, "accuracy", name in BUNDLED, about)


def _tu(canonical: str, size: int, classes: int, about: str) -> Entry:
    name = canonical.lower()
    return Entry(name, "graph", "tu", canonical, size, classes, 1, "accuracy", name in BUNDLED, about)


def _molecules(name: str, canonical: str, size: int, tasks: int, about: str, classes: int = 2) -> Entry:
    metric: Literal["roc_auc", "rmse"] = "roc_auc" if classes else "rmse"
    return Entry(name, "graph", "molecule", canonical, size, classes, tasks, metric, name in BUNDLED, about)


def _ogb(name: str, size: int, tasks: int, about: str, metric: Literal["roc_auc", "prc_auc", "rmse"]) -> Entry:
    return Entry(f"ogbg-{name}", "graph", "ogb", name, size, 0 if metric == "rmse" else 2, tasks, metric, False, about)


BUNDLED = ("cora", "imdb-binary", "bbbp")  # inside the package, no download

_ENTRIES = [
    _node("cora", "planetoid", "Cora", 2708, 7, "citations of machine-learning papers, bag of words, public split"),
    _node("citeseer", "planetoid", "CiteSeer", 3327, 6, "citations of computer-science papers, public split"),
    _node("pubmed", "planetoid", "PubMed", 19717, 3, "citations of diabetes papers, TF-IDF words, public split"),
    _node("amazon-computers", "amazon", "Computers", 13752, 10, "computers bought together, words of their reviews"),
    _node("amazon-photo", "amazon", "Photo", 7650, 8, "cameras bought together, words of their reviews"),
    _node("coauthor-cs", "coauthor", "CS", 18333, 15, "authors who wrote together, words of their papers"),
    _node("coauthor-physics", "coauthor", "Physics", 34493, 5, "authors who wrote together; 1.2 GB of features"),
    _node("wikics", "wikics", "WikiCS", 11701, 10, "links of computer-science articles, 20 public splits"),
    _node("texas", "webkb", "texas", 183, 5, "web pages of a university, heterophilous, 10 public splits"),
    _node("wisconsin", "webkb", "wisconsin", 251, 5, "web pages of a university, heterophilous, 10 public splits"),
    _node("cornell", "webkb", "cornell", 183, 5, "web pages of a university, heterophilous, 10 public splits"),
    _tu("MUTAG", 188, 2, "molecules: mutagenic or not; atoms and bonds labelled"),
    _tu("PTC_MR", 344, 2, "molecules: carcinogenic for male rats or not"),
    _tu("PTC_FM", 349, 2, "molecules: carcinogenic for female mice or not"),
    _tu("PTC_FR", 351, 2, "molecules: carcinogenic for female rats or not"),
    _tu("PTC_MM", 336, 2, "molecules: carcinogenic for male mice or not"),
    _tu("NCI1", 4110, 2, "molecules: active against lung cancer or not"),
    _tu("NCI109", 4127, 2, "molecules: active against ovarian cancer or not"),
    _tu("Mutagenicity", 4337, 2, "molecules: mutagenic or not"),
    _tu("AIDS", 2000, 2, "molecules: active against HIV or not"),
    _tu("BZR", 405, 2, "molecules that bind the benzodiazepine receptor"),
    _tu("COX2", 467, 2, "molecules that inhibit cyclooxygenase-2"),
    _tu("PROTEINS", 1113, 2, "proteins: enzyme or not"),
    _tu("DD", 1178, 2, "large protein structures: enzyme or not"),
    _tu("ENZYMES", 600, 6, "enzymes by the reaction they catalyse"),
    _tu("IMDB-BINARY", 1000, 2, "actors' ego networks: action or romance; no features"),
    _tu("IMDB-MULTI", 1500, 3, "actors' ego networks: comedy, romance or sci-fi; no features"),
    _tu("REDDIT-BINARY", 2000, 2, "discussion threads: questions or talk; no features"),
    _tu("REDDIT-MULTI-5K", 4999, 5, "discussion threads by forum; no features"),
    _tu("REDDIT-MULTI-12K", 11929, 11, "discussion threads by forum; no features"),
    _tu("COLLAB", 5000, 3, "researchers' ego networks by field of physics; no features"),
    _molecules("bbbp", "BBBP", 2050, 1, "crosses the blood-brain barrier or not"),
    _molecules("bace", "bace", 1513, 1, "inhibits beta-secretase 1 or not"),
    _molecules("tox21", "tox21", 7831, 12, "toxicity on 12 targets"),
    _molecules("toxcast", "toxcast_data", 8576, 617, "toxicity in 617 assays"),
    _molecules("sider", "sider", 1427, 27, "side effects of marketed drugs in 27 groups"),
    _molecules("clintox", "clintox", 1484, 2, "approved, and failed for toxicity"),
    _molecules("muv", "muv", 93087, 17, "17 targets with very few actives"),
    _molecules("hiv", "HIV", 41127, 1, "inhibits HIV replication or not"),
    _molecules("esol", "delaney-processed", 1128, 1, "solubility in water (regression)", classes=0),
    _molecules("freesolv", "SAMPL", 642, 1, "free energy of hydration (regression)", classes=0),
    _molecules("lipo", "Lipophilicity", 4200, 1, "lipophilicity (regression)", classes=0),
    _ogb("molbace", 1513, 1, "OGB: inhibits beta-secretase 1 or not", "roc_auc"),
    _ogb("molbbbp", 2039, 1, "OGB: crosses the blood-brain barrier or not", "roc_auc"),
    _ogb("molclintox", 1477, 2, "OGB: approved, and failed for toxicity", "roc_auc"),
    _ogb("molmuv", 93087, 17, "OGB: 17 targets with very few actives", "prc_auc"),
    _ogb("molpcba", 437929, 128, "OGB: 128 bioassays", "prc_auc"),
    _ogb("molsider", 1427, 27, "OGB: side effects of marketed drugs in 27 groups", "roc_auc"),
    _ogb("moltox21", 7831, 12, "OGB: toxicity on 12 targets", "roc_auc"),
    _ogb("moltoxcast", 8576, 617, "OGB: toxicity in 617 assays", "roc_auc"),
    _ogb("molhiv", 41127, 1, "OGB: inhibits HIV replication or not", "roc_auc"),
    _ogb("molesol", 1128, 1, "OGB: solubility in water (regression)", "rmse"),
    _ogb("molfreesolv", 642, 1, "OGB: free energy of hydration (regression)", "rmse"),
    _ogb("mollipo", 4200, 1, "OGB: lipophilicity (regression)", "rmse"),
    _ogb("molchembl", 456331, 1310, "OGB: 1310 assays of ChEMBL", "roc_auc"),
]
DATASETS: dict[str, Entry] = {entry.name: entry for entry in _ENTRIES}


def find(name: str) -> Entry | Path:
    """The entry of a data set (case does not matter, `_` is `-`), or the path of data of one's own, which must exist.

    Raises ValueError with the near names.
    """
    wanted = _plain(name)
    for entry in _ENTRIES:
        if _plain(entry.name) == wanted:
            return entry
    path = Path(name).expanduser()
    if name.strip() and "\0" not in name and path.exists():
        return path
    if not name.strip():
        raise ValueError(f"data set name is empty; known: {', '.join(DATASETS)}")
    if any(mark in name for mark in ("/", "\\", "\0", "..")):
        raise ValueError(
            f"{name!r} is neither a data set nor a path that exists; a name has no '/' or '..' in it, "
            f"known: {', '.join(DATASETS)}"
        )
    close = difflib.get_close_matches(wanted, DATASETS, n=3, cutoff=0.6)
    close += [known for known in DATASETS if wanted in known and known not in close]
    hint = f"; did you mean {' or '.join(close)}?" if close else f"; known: {', '.join(DATASETS)}"
    raise ValueError(f"unknown data set {name!r}{hint} (`graphcl datasets` lists them; a path must exist)")


def _plain(name: str) -> str:
    return name.strip().lower().replace("_", "-")
