"""The README leads to what is there, and to all of it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from sartm_model.cli import main as cli

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / 'README.md').read_text()


def links(file):
    """What a Markdown file of this repository links to in it."""
    found = re.findall(r'\]\(([^)#]+)\)', file.read_text())
    return {(file.parent / link).resolve() for link in found if '://' not in link}


def test_every_link_leads_somewhere():
    for file in (ROOT / 'README.md', *(ROOT / 'docs').glob('*.md')):
        assert [link for link in links(file) if not link.exists()] == []


def test_every_document_and_the_parameters_are_linked():
    linked = links(ROOT / 'README.md')
    assert linked >= {*(ROOT / 'docs').glob('*.md'), ROOT / 'config' / 'sartm.yaml'}


def test_the_verbs_it_shows_exist():
    shown = set(re.findall(r'^sartm ([a-z-]+)', README, re.MULTILINE))
    assert len(shown) >= 10
    text = cli.build_parser().format_help()
    assert [verb for verb in sorted(shown) if not re.search(rf'^ +{verb}\b', text, re.M)] == []


def test_the_python_in_it_is_python():
    blocks = re.findall(r'```python\n(.*?)```', README, re.DOTALL)
    assert len(blocks) >= 2
    for block in blocks:
        ast.parse(block)
