import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.data import Data

from graphcl.data.sources import load_data
from graphcl.data.splits import (
    few_split,
    kfold_split,
    make_splits,
    public_split,
    random_split,
    rate_split,
    share_of,
)
from graphcl.data.store import GraphStore


def disjoint(split) -> bool:
    rows = torch.cat(list(split))
    return all(part.dtype == torch.int64 and len(part) > 0 for part in split) and len(rows.unique()) == len(rows)


def store_of(y) -> GraphStore:
    store = GraphStore.from_graphs([Data(num_nodes=1) for _ in range(len(y))], name="mine")
    return store._like(y=y)


def test_public_masks():
    train, val, test = torch.eye(6)[:3].bool()
    (split,) = public_split(Data(train_mask=train, val_mask=val, test_mask=test, num_nodes=6))
    assert [part.tolist() for part in split] == [[0], [1], [2]]


def test_public_masks_of_several_splits_share_a_test_set():
    masks = torch.eye(6).bool()
    data = Data(train_mask=masks[:, :2], val_mask=masks[:, 2:4], test_mask=masks[5], num_nodes=6)
    assert [[part.tolist() for part in split] for split in public_split(data)] == [[[0], [2], [5]], [[1], [3], [5]]]


def test_no_public_split():
    with pytest.raises(ValueError, match=r"no public split .*use data\.split=random or few"):
        public_split(Data(num_nodes=3))
    with pytest.raises(ValueError, match=r"mine has no public split; use data\.split=random, kfold, or scaffold"):
        make_splits(store_of(torch.zeros(5).long()), "public")
    with pytest.raises(ValueError, match="train_mask must be bool"):
        public_split(Data(train_mask=torch.ones(3), val_mask=torch.ones(3).bool(), test_mask=torch.ones(3).bool()))


@settings(max_examples=25, deadline=None)
@given(st.integers(3, 200), st.integers(0, 9), st.integers(1, 3))
def test_random_covers_all_rows(n, seed, repeats):
    splits = random_split(n, seed, repeats)
    assert len(splits) == repeats
    for split in splits:
        assert disjoint(split) and sum(map(len, split)) == n
        assert abs(len(split.train) - 0.1 * n) <= 1 and abs(len(split.val) - 0.1 * n) <= 1


def test_random_is_seeded_and_its_repeats_differ():
    a, b, c = random_split(50, 1, 2), random_split(50, 1, 2), random_split(50, 2, 2)
    assert torch.equal(a[0].test, b[0].test) and torch.equal(a[1].test, b[1].test)
    assert not torch.equal(a[0].test, a[1].test) and not torch.equal(a[0].test, c[0].test)


def test_random_mistakes():
    with pytest.raises(ValueError, match="2 rows with a label cannot be split"):
        random_split(2, 0)
    with pytest.raises(ValueError, match="ratios must be three positive shares"):
        random_split(9, 0, ratios=(0.5, 0.0, 0.5))


@pytest.mark.parametrize("n", [40, 3000])
def test_few_takes_so_many_of_each_class(n):
    y = torch.arange(n) % 3
    y[::7] = -1
    for split in few_split(y, per_class=5, seed=0, repeats=3):
        assert disjoint(split)
        assert torch.bincount(y[split.train]).tolist() == [5, 5, 5]
        assert bool((y[torch.cat(list(split))] >= 0).all())
        if n == 3000:
            assert len(split.val) == 500 and len(split.test) == 1000
        else:
            assert len(torch.cat(list(split))) == int((y >= 0).sum())


@pytest.mark.parametrize(
    "make",
    [
        lambda y: few_split(y, 1, 0),
        lambda y: kfold_split(y, 3, 0),
        lambda y: rate_split(y, 0.5, 3, 0),
        lambda y: share_of(torch.arange(9), y, 0.5, 0),
    ],
)
def test_labels_that_are_no_tensor_are_told_the_way(make):
    with pytest.raises(TypeError, match=r"labels must be a tensor \[N\], got ndarray; use torch.as_tensor\(labels\)"):
        make((torch.arange(9) % 3).numpy())


def test_few_mistakes():
    y = torch.tensor([0] * 10 + [2] * 3)
    with pytest.raises(
        ValueError, match=r"class 2 has 3 labelled rows, per_class=4 needs more; set a smaller data\.per_class"
    ):
        few_split(y, 4, 0)
    with pytest.raises(ValueError, match=r"per_class=3 leaves 1 rows .*; set a smaller data\.per_class"):
        few_split(torch.tensor([0, 0, 0, 0]), 3, 0)
    with pytest.raises(ValueError, match=r"per_class=1 leaves 0 rows .*; label more rows"):
        few_split(torch.tensor([0, 1]), 1, 0)
    with pytest.raises(ValueError, match="needs one class a row"):
        few_split(torch.rand(5, 2), 1, 0)
    with pytest.raises(ValueError, match=r"all 5 are unknown \(-1\)"):
        few_split(torch.full((5,), -1), 1, 0)


@settings(max_examples=15, deadline=None)
@given(st.integers(3, 10), st.integers(0, 5))
def test_folds_are_stratified_and_each_row_is_tested_once(folds, seed):
    y = torch.arange(97) % 4
    y[5] = -1
    splits = kfold_split(y, folds, seed)
    assert len(splits) == folds
    assert torch.cat([split.test for split in splits]).sort().values.tolist() == [i for i in range(97) if i != 5]
    for i, split in enumerate(splits):
        assert disjoint(split) and sum(map(len, split)) == 96
        assert torch.equal(split.val, splits[(i + 1) % folds].test)
        for c, count in enumerate(torch.bincount(y[split.test], minlength=4).tolist()):
            assert abs(count - int((y == c).sum()) / folds) < 1
    assert all(torch.equal(a.test, b.test) for a, b in zip(splits, kfold_split(y, folds, seed), strict=True))
    assert any(not torch.equal(a.test, b.test) for a, b in zip(splits, kfold_split(y, folds, seed + 1), strict=True))


def test_fold_mistakes():
    with pytest.raises(ValueError, match=r"kfold needs at least 3 folds .*got 1"):
        kfold_split(torch.arange(9) % 2, 1, 0)
    with pytest.raises(ValueError, match="class 1 has 4 labelled rows, 5 folds need 5"):
        kfold_split(torch.arange(9) % 2, 5, 0)
    y = torch.tensor([0] * 5 + [1] * 4 + [2] * 9)
    with pytest.raises(ValueError, match=r"class 1 has 4 labelled rows, 6 folds need 6; set data\.repeats=4"):
        kfold_split(y, 6, 0)
    assert len(kfold_split(y, 4, 0)) == 4  # as advised
    y[9] = 3
    with pytest.raises(
        ValueError, match=r"class 3 has 1 labelled rows, 3 folds need 3; make its rows unknown \(-1\) or use"
    ):
        rate_split(y, 0.5, 3, 0)
    y[9] = -1
    assert len(kfold_split(y, 3, 0)) == 3


@pytest.mark.parametrize("numbers", [[0, 1, 2], [0, 3, 7], [5, 6, 900], [0, 1, 10**11]])
def test_splits_know_the_order_of_the_classes_alone_and_large_numbers_cost_nothing(numbers):
    y = torch.arange(90) % 3
    other = torch.tensor(numbers)[y]
    y[::7] = other[::7] = -1
    for make in (lambda y: few_split(y, 4, 1, 2), lambda y: kfold_split(y, 5, 1), lambda y: rate_split(y, 0.3, 5, 1)):
        for split, same in zip(make(y), make(other), strict=True):
            assert all(torch.equal(a, b) for a, b in zip(split, same, strict=True))
    with pytest.raises(ValueError, match=f"class {numbers[0]} has 25 labelled rows, per_class=27 needs more"):
        few_split(other, 27, 0)


def test_few_takes_the_first_of_each_class_in_a_drawn_order():
    y = torch.tensor([0, 2, 5])[torch.arange(60) % 3]
    y[::7] = -1
    order = [row for row in torch.randperm(60, generator=torch.Generator().manual_seed(3)).tolist() if y[row] >= 0]
    chosen = [row for c in (0, 2, 5) for row in [row for row in order if y[row] == c][:4]]
    others = [row for row in order if row not in chosen]
    (split,) = few_split(y, 4, 3)
    third = len(others) // 3
    assert [part.tolist() for part in split] == [chosen, others[:third], others[third:]]


@settings(max_examples=15, deadline=None)
@given(st.sampled_from([0.01, 0.1, 0.5, 1.0]), st.integers(3, 10), st.integers(0, 5))
def test_a_rate_keeps_its_share_of_each_class_of_the_training_folds(rate, folds, seed):
    y = (torch.arange(330) % 11).clamp(max=2)  # classes of 30, 30 and 270
    y[::40] = -1
    for split, whole in zip(rate_split(y, rate, folds, seed), kfold_split(y, folds, seed), strict=True):
        assert disjoint(split) and torch.equal(split.val, whole.val) and torch.equal(split.test, whole.test)
        assert bool(torch.isin(split.train, whole.train).all())
        kept, there = torch.bincount(y[split.train], minlength=3), torch.bincount(y[whole.train], minlength=3)
        assert kept.tolist() == [max(round(rate * count), 1) for count in there.tolist()]
    assert rate == 1 or not torch.equal(
        rate_split(y, rate, folds, seed)[0].train, rate_split(y, rate, folds, seed + 1)[0].train
    )


def test_rate_mistakes():
    for rate in (0.0, 1.5, -1, float("nan")):
        with pytest.raises(ValueError, match=r"rate must be in \(0, 1\], got .*0\.01 and 0\.1 are usual"):
            rate_split(torch.arange(60) % 2, rate, 5, 0)
    with pytest.raises(ValueError, match="needs at least 3 folds"):
        rate_split(torch.arange(60) % 2, 0.1, 2, 0)


@pytest.mark.parametrize("kind", ["random", "few", "kfold", "rate"])
def test_make_splits_uses_labelled_rows_only(kind):
    y = torch.arange(60) % 3
    y[::5] = -1
    for source in (Data(y=y, num_nodes=60), store_of(y)):
        for split in make_splits(source, kind, seed=1, repeats=4, per_class=3):
            assert disjoint(split) and bool((y[torch.cat(list(split))] >= 0).all())


def test_make_splits_of_tasks_with_gaps():
    y = torch.rand(30, 2)
    y[:10] = float("nan")
    y[10:20, 0] = float("nan")
    (split,) = make_splits(store_of(y), "random")
    assert torch.cat(list(split)).sort().values.tolist() == list(range(10, 30))


def test_make_splits_mistakes():
    with pytest.raises(ValueError, match=r"data\.split=few needs labels, the data has none"):
        make_splits(Data(num_nodes=3), "few")
    with pytest.raises(ValueError, match=r"scaffold needs molecules \(SMILES\)"):
        make_splits(store_of(torch.zeros(5).long()), "scaffold")
    with pytest.raises(ValueError, match="unknown split 'best'"):
        make_splits(store_of(torch.zeros(5).long()), "best")


def test_scaffold_rate_keeps_a_share_of_the_training_rows_of_each_class_and_the_same_rest():
    store = load_data("bbbp")
    whole = make_splits(store, "scaffold")[0]
    draws = make_splits(store, "scaffold_rate", rate=0.1, repeats=3, seed=6)
    assert len({tuple(one.train.tolist()) for one in draws}) == 3
    for one in draws:
        assert torch.equal(one.val, whole.val) and torch.equal(one.test, whole.test)
        assert set(one.train.tolist()) <= set(whole.train.tolist())
        for c in (0, 1):
            assert int((store.y[one.train] == c).sum()) == round(0.1 * int((store.y[whole.train] == c).sum()))
    apart = [*draws, *make_splits(store, "scaffold_rate", rate=0.1, repeats=3, seed=9)]
    assert len({tuple(one.train.tolist()) for one in apart}) == 6
    with pytest.warns(UserWarning, match="has the seed 7 \\+ i, .*; take multiples of 3 as seeds"):
        make_splits(store, "scaffold_rate", rate=0.1, repeats=3, seed=7)
    again = make_splits(store, "scaffold_rate", rate=0.1, repeats=3, seed=6)
    assert all(torch.equal(a.train, b.train) for a, b in zip(draws, again, strict=True))


def test_a_share_of_several_tasks_counts_rows_with_a_label():
    y = torch.full((40, 3), float("nan"))
    y[:20, 1] = 1.0
    kept = share_of(torch.arange(30), y, 0.5, seed=1)
    assert len(kept) == 10 and kept.max() < 20
    with pytest.raises(ValueError, match=r"rate must be in \(0, 1\], got 0"):
        share_of(torch.arange(30), y, 0, seed=1)
