"""Which files have changed since a commit in what they compute.

Words and checks do not count: comments, docstrings, the layout of the code, warnings, and an `if` that ends in `raise`.
A row that was made passed the checks of its day, and what they say or refuse today leaves its score as it is.
"""

from __future__ import annotations

import ast
import functools
import subprocess

from graphcl.ledger import git


def changes_since(commit: str, files: tuple[str, ...]) -> list[str] | None:
    """Those of the files (or folders, or patterns) that compute something else at HEAD; None where git cannot tell.

    A file that is new does not count: what depended on it before did not, and what does now has changed itself.
    """
    try:
        raw = git("diff", "--raw", "--no-abbrev", "--no-renames", commit.removesuffix("+"), "HEAD", "--", *files)
        found = []
        for line in raw.splitlines():
            _, _, before, after, kind, path = line.split(maxsplit=5)
            if kind != "A" and (kind == "D" or not path.endswith(".py") or computes(before) != computes(after)):
                found.append(path)
        return found
    except (OSError, subprocess.SubprocessError):
        return None


@functools.cache
def computes(blob: str) -> str:
    """A Python file of git's store as its syntax tree, without words and checks."""
    return ast.dump(Plain().visit(ast.parse(git("cat-file", "blob", blob))))


class Plain(ast.NodeTransformer):
    """Takes docstrings, warnings and checks away."""

    def visit_Import(self, node: ast.Import) -> ast.Import | None:
        """No `import warnings`: what it is for is gone."""
        return None if [name.name for name in node.names] == ["warnings"] else node

    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        """No string that stands alone, no `warnings.warn(...)`."""
        call = node.value
        if isinstance(call, ast.Constant) and isinstance(call.value, str):
            return None
        warns = isinstance(call, ast.Call) and ast.unparse(call.func) == "warnings.warn"
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
