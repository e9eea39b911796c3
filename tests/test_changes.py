"""A file counts as changed when it computes something else."""

import ast
import subprocess

import pytest

from graphcl import changes, ledger

OLD = '''
"""A module."""
import a.registers

def scale(x, by=2.0):
    """Twice."""
    if by <= 0:
        raise ValueError("bad")
    return x * by  # a comment
'''
SAME = {
    "words": OLD.replace("A module.", "Of numbers.").replace('"""Twice."""', '"""By a factor."""'),
    "comments": OLD.replace("# a comment", ""),
    "layout": OLD.replace("x * by", "(x\n        * by)"),
    "message": OLD.replace('"bad"', 'f"by must be > 0, got {by}"'),
    "a check": OLD.replace(
        "    return", "    if x is None:\n        given = 'None'\n        raise TypeError(given)\n    return"
    ),
    "a check less": OLD.replace('    if by <= 0:\n        raise ValueError("bad")\n', ""),
    "a check with an import": "import math\n" + OLD.replace("by <= 0", "math.isnan(by)"),
    "a warning": OLD.replace(
        "    return", "    if by > 100:\n        warnings.warn('large', stacklevel=2)\n    return"
    ).replace("import a", "import warnings\nimport a"),
    "a warning by name": "from a import warn_of_large\n"
    + OLD.replace("    return", "    warn_of_large(x.a, 3)\n    return"),
}
OTHER = {
    "a default": OLD.replace("2.0", "3.0"),
    "an operation": OLD.replace("x * by", "x + by"),
    "a branch": OLD.replace("    return", "    if by > 100:\n        by = 100\n    return"),
    "otherwise": OLD.replace('raise ValueError("bad")', 'raise ValueError("bad")\n    else:\n        x = x + 1'),
    "a way out": OLD.replace("<= 0:", "<= 0:\n        if x is None:\n            return 0"),
    "an import for what it does": OLD.replace("a.registers", "b.registers"),
    "an import for other files": "from b import f\n",
    "an import that is tried": "try:\n    import b\nexcept ImportError:\n    x = 1\nif x:\n    raise b\n",
    "where a name is from": "from b import scale\nscale(1)\n",
    "a warning that computes": OLD.replace("    return", "    warn_of_large(x := x + 1)\n    return"),
    "a warning that is called on": OLD.replace("    return", "    x.fit().warn_of_large()\n    return"),
    "a next round": "for x in y:\n    if x:\n        if z:\n            continue\n        raise ValueError\n",
    "what is caught": "try:\n    if x:\n        raise ValueError\nexcept ValueError:\n    x = 1\n",
    "a name in a test": OLD.replace("by <= 0", "(by := by - 1) <= 0"),
}


FIRST = {
    "an import for other files": "from a import f\n",
    "an import that is tried": "try:\n    import a\nexcept ImportError:\n    x = 1\nif x:\n    raise a\n",
    "where a name is from": "from a import scale\nscale(1)\n",
    "a next round": "for x in y:\n    pass\n",
    "what is caught": "try:\n    pass\nexcept ValueError:\n    x = 1\n",
}


def tree(text):
    return ast.dump(changes.plain(text))


@pytest.mark.parametrize("kind", SAME)
def test_words_and_checks_do_not_count(kind):
    assert SAME[kind] != OLD and tree(SAME[kind]) == tree(OLD)


@pytest.mark.parametrize("kind", OTHER)
def test_what_is_computed_counts(kind):
    first = FIRST.get(kind, OLD)
    assert OTHER[kind] != first and tree(OTHER[kind]) != tree(first)


def test_files_are_compared_as_git_has_them(tmp_path, monkeypatch):
    monkeypatch.setattr(ledger, "ROOT", tmp_path)
    changes.computes.cache_clear()
    changes.declared.cache_clear()

    def git(*arguments):
        name = "-c", "user.name=x", "-c", "user.email=x@x"
        subprocess.run(["git", *name, *arguments], cwd=tmp_path, check=True, capture_output=True)

    git("init", "-q")
    (tmp_path / "views").mkdir()
    for name in ("words.py", "other.py", "gone.py", "views/one.py", "asks.yaml"):
        (tmp_path / name).write_text(OLD)
    git("add", ".")
    git("commit", "-qm", "one")
    first = ledger.git("rev-parse", "HEAD")
    (tmp_path / "words.py").write_text(SAME["words"])
    (tmp_path / "other.py").write_text(OTHER["a default"])
    (tmp_path / "gone.py").unlink()
    (tmp_path / "views/one.py").write_text(OTHER["a branch"])
    (tmp_path / "views/new.py").write_text(OLD)
    (tmp_path / "asks.yaml").write_text("# other words")
    git("add", ".")
    git("commit", "-qm", "two")
    every = ("words.py", "other.py", "gone.py", "views", "asks.yaml")
    assert changes.changes_since(first, every) == ["asks.yaml", "gone.py", "other.py", "views/one.py"]
    assert changes.changes_since(first + "+", ("words.py",)) == []
    assert changes.changes_since(ledger.git("rev-parse", "HEAD"), every) == []
    (tmp_path / "other.py").write_text(OLD)
    git("commit", "-qam", "three")
    assert changes.changes_since(first, ("other.py",)) == [], "changed and changed back"
    assert changes.changes_since("abc1234", every) is None


def test_versions_that_are_declared_the_same_do_not_count(tmp_path, monkeypatch):
    monkeypatch.setattr(ledger, "ROOT", tmp_path)
    name = "-c", "user.name=x", "-c", "user.email=x@x"

    def commit(text):
        changes.declared.cache_clear()
        (tmp_path / "views.py").write_text(text)
        (tmp_path / "other.py").write_text(text)
        for command in (["add", "."], ["commit", "-qm", "one"]):
            subprocess.run(["git", *name, *command], cwd=tmp_path, check=True, capture_output=True)
        return ledger.git("rev-parse", "HEAD"), ledger.git("rev-parse", "HEAD:views.py")

    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    (tmp_path / "results").mkdir()
    versions = [commit(OLD), commit(OTHER["a default"]), commit(OTHER["a branch"]), commit(SAME["words"])]
    blobs = [blob for _, blob in versions]
    both = ("views.py", "other.py")
    lines = ["# words", "", f"views.py {blobs[0]} {blobs[1]} tests/a.py", f"views.py {blobs[1]} {blobs[2]} tests/a.py"]
    (tmp_path / "results/same.txt").write_text("\n".join(lines[:3]))
    commit(OTHER["a branch"])
    assert changes.changes_since(versions[0][0], both) == ["other.py", "views.py"], "a step is missing"
    assert changes.changes_since(versions[1][0], both) == ["other.py", "views.py"]
    (tmp_path / "results/same.txt").write_text("\n".join(lines))
    commit(OTHER["a branch"] + "\n# words")
    assert changes.changes_since(versions[0][0], both) == ["other.py"], "by two steps, of this file alone"
    assert changes.changes_since(versions[3][0], both) == ["other.py"], "of another version with the same tree"
    changes.declared.cache_clear()


def test_the_declared_pairs_are_versions_with_a_test():
    changes.declared.cache_clear()
    assert changes.declared()
    for path, before, after, tests in changes.declared():
        assert (ledger.ROOT / path).is_file() and (ledger.ROOT / tests).is_file() and before != after
        if (ledger.ROOT / ".git").exists() and ledger.git("rev-parse", "--is-shallow-repository") == "false":
            assert [ledger.git("cat-file", "-t", blob) for blob in (before, after)] == ["blob", "blob"]
