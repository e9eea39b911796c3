"""Every python block of the README and of docs/ runs, and so does every example."""

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCKS = [
    pytest.param(block, id=f"{page.name}-{place}")
    for page in PAGES
    for place, block in enumerate(re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.S | re.M))
]


@pytest.mark.parametrize("block", BLOCKS)
def test_block_runs(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    script = tmp_path / "block.py"
    script.write_text(block, encoding="utf-8")
    runpy.run_path(str(script))


def test_links_lead_somewhere():
    for page in [*PAGES, ROOT / "CONTRIBUTING.md"]:
        for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
            if not target.startswith(("http:", "https:")):
                assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_commands_in_the_documents_exist():
    from graphcl.read_config import config_names

    commands = {"pretrain", "evaluate", "embed", "methods", "augmentations", "datasets", "protocols", "bench"}
    commands |= {"benchmark", "report", "sweep", "finetune", "predict", "pretrained", "export", "convert"}
    for page in PAGES:
        for command, argument in re.findall(r"^\S*graphcl (\w+) ?([\w./-]*)", page.read_text(encoding="utf-8"), re.M):
            assert command in commands, f"{page.name}: graphcl {command}"
            if command == "pretrain" and not argument.endswith(".yaml"):
                assert argument in config_names(), f"{page.name}: graphcl pretrain {argument}"
