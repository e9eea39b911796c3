"""Which files have changed since a commit in what they compute.

Words and checks do not count: comments, docstrings, the layout of the code, warnings, an `if` that ends in `raise`, and
imports for nothing else.
A row that was made passed the checks of its day, and what they say or refuse today leaves its score as it is.
Nor does another way to the same numbers count, where a test compares them: results/same.txt names such pairs of
versions of a file, by their blobs in git, with the test. Only rounding may differ between the two.
"""

from __future__ import annotations

import ast
import functools
import subprocess

from graphcl import ledger
from graphcl.ledger import git

PAIRS = "results/same.txt"


def changes_since(commit: str, files: tuple[str, ...]) -> list[str] | None:
    """Those of the files (or folders, or patterns) that compute something else at HEAD; None where git cannot tell.

    A file that is new does not count: what depended on it before did not, and what does now has changed itself.
    """
    try:
        raw = git("diff", "--raw", "--no-abbrev", "--no-renames", commit.removesuffix("+"), "HEAD", "--", *files)
        found = []
        for line in raw.splitlines():
            _, _, before, after, kind, path = line.split(maxsplit=5)
            compared = kind not in "AD" and path.endswith(".py")
            if kind != "A" and not (compared and same(path, before, after)):
                found.append(path)
        return found
    except (OSError, subprocess.SubprocessError):
        return None


def same(path: str, before: str, after: str) -> bool:
    """Whether two versions of a file compute the same: by their trees, or by the pairs of results/same.txt."""
    pairs = [(computes(one), computes(other)) for file, one, other, _ in declared() if file == path]
    reached, wanted, found = {computes(before)}, computes(after), -1
    while found < len(reached):  # from version to version
        found = len(reached)
        reached |= {end for pair in pairs for end in pair if reached & set(pair)}
    return wanted in reached


@functools.cache
def declared() -> list[list[str]]:
    """Of results/same.txt: path, blob before, blob after, and the file of tests that compares the two."""
    file = ledger.ROOT / PAIRS
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    return [line.split() for line in lines if line and not line.startswith("#")]


@functools.cache
def computes(blob: str) -> str:
    """A Python file of git's store as its syntax tree, without words and checks."""
    return ast.dump(plain(git("cat-file", "blob", blob)))


def plain(text: str) -> ast.AST:
    """The syntax tree of a file without words and checks, and without imports for nothing but these.

    Imports that nothing needs, words and checks included, stay: they are for other files, or for what they do.
    """
    before = names_in(ast.parse(text))
    tree: ast.AST = Plain().visit(ast.parse(text))
    return Needed(before - names_in(tree)).visit(tree)


def names_in(tree: ast.AST) -> set[str]:
    """The names that are read or written in it."""
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


SIMPLE = ast.Name | ast.Attribute | ast.Constant | ast.expr_context  # computing none of these does anything


class Plain(ast.NodeTransformer):
    """Takes docstrings, warnings and checks away."""

    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        """No string that stands alone, no `warnings.warn(...)`, no call `warn_of_...(names, constants)`."""
        call = node.value
        if isinstance(call, ast.Constant) and isinstance(call.value, str):
            return None
        if not isinstance(call, ast.Call):
            return node
        values = [*call.args, *(keyword.value for keyword in call.keywords)]
        plain_values = all(isinstance(part, SIMPLE) for value in values for part in ast.walk(value))
        warns = ast.unparse(call.func) == "warnings.warn" or (
            isinstance(call.func, ast.Name) and call.func.id.startswith("warn_of_") and plain_values
        )
        return None if warns else node

    def visit_Try(self, node: ast.Try) -> ast.Try:
        """All of it: what is raised there may be caught, and then steers what follows."""
        return node

    def visit_If(self, node: ast.If) -> ast.AST | None:
        """No `if` that ends in `raise`, or has nothing left to do."""
        walked = [part for one in (node.test, *node.body) for part in ast.walk(one)]
        leaves = ast.Return | ast.Break | ast.Continue | ast.Yield | ast.YieldFrom | ast.NamedExpr
        if any(isinstance(part, leaves) for part in walked) or node.orelse:
            return self.generic_visit(node)
        if isinstance(node.body[-1], ast.Raise):
            return None
        self.generic_visit(node)
        return node if node.body else None


class Needed(ast.NodeTransformer):
    """Takes imports of the names `idle` away, but for those that are tried."""

    def __init__(self, idle: set[str]) -> None:
        self.idle = idle

    def visit_Try(self, node: ast.Try) -> ast.Try:
        """All of it: an import that fails is caught there."""
        return node

    def visit_Import(self, node: ast.Import) -> ast.Import | None:
        """`import a.b` gives the name a."""
        node.names = [one for one in node.names if (one.asname or one.name.partition(".")[0]) not in self.idle]
        return node if node.names else None

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.ImportFrom | None:
        """`from a import b as c` gives the name c."""
        node.names = [one for one in node.names if (one.asname or one.name) not in self.idle]
        return node if node.names else None
