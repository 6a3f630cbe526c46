"""What the README and the other documents name exists: files, commands, options, Python modules."""

from __future__ import annotations

import ast
import re
import shlex
from importlib.util import find_spec
from pathlib import Path

import pytest

from sartm_model.cli.main import build_parser
from sartm_ros.settings.parameters import NAMES

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / 'README.md').read_text()
# The change log also names what earlier versions had.
DOCUMENTS = sorted({*ROOT.glob('*.md'), *(ROOT / 'docs').glob('*.md')} - {ROOT / 'CHANGELOG.md'})


def links(file: Path) -> set[Path]:
    """The files of this repository that a Markdown file links to."""
    found = re.findall(r'\]\(([^)#]+)', without_code(file))
    return {(file.parent / link).resolve() for link in found if '://' not in link}


def without_code(file: Path) -> str:
    """The text of a Markdown file without its code blocks."""
    return re.sub(r'^```.*?^```', '', file.read_text(), flags=re.DOTALL | re.MULTILINE)


def anchors(file: Path) -> set[str]:
    """The names that a Markdown file's headings have in links, as GitHub makes them."""
    titles = re.findall(r'^#+ (.*)', without_code(file), re.MULTILINE)
    return {re.sub(r'[^\w -]', '', title).strip().lower().replace(' ', '-') for title in titles}


def commands(file: Path) -> list[str]:
    """The lines of a Markdown file's code blocks, continued lines joined, without comments."""
    blocks = re.findall(r'^```\w*\n(.*?)^```', file.read_text(), re.DOTALL | re.MULTILINE)
    text = '\n'.join(blocks).replace('\\\n', ' ')
    return [re.sub(r'\s+#.*', '', line).strip() for line in text.splitlines()]


def test_every_link_leads_somewhere():
    for file in DOCUMENTS:
        assert [link for link in links(file) if not link.exists()] == []


def test_every_link_to_a_section_leads_to_a_heading():
    for file in DOCUMENTS:
        for name, anchor in re.findall(r'\]\(([^)#:]*)#([^)]+)\)', without_code(file)):
            target = file.parent / name if name else file
            assert target.suffix != '.md' or anchor in anchors(target), f'{file.name}: #{anchor}'


def test_every_document_and_the_parameters_are_linked():
    linked = links(ROOT / 'README.md')
    assert linked >= {*(ROOT / 'docs').glob('*.md'), ROOT / 'config' / 'sartm.yaml'}


@pytest.mark.parametrize('file', DOCUMENTS, ids=lambda file: file.name)
def test_the_files_named_in_backticks_exist(file):
    folders = 'sartm_model|sartm_ros|benchmarks|tools|test|config|launch|docs|requirements|examples'
    named = re.findall(rf'`((?:{folders})/[\w./-]*)`', file.read_text())
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_workspace_recipe_names_files_that_exist():
    named = re.findall(r'src/sartm_ros/(\S+)', README)
    assert len(named) >= 2
    assert [name for name in named if not (ROOT / name).is_file()] == []


@pytest.mark.usefixtures('bag_verbs')
@pytest.mark.parametrize('file', DOCUMENTS, ids=lambda file: file.name)
def test_the_sartm_commands_are_valid(file):
    """Each one parses: its verb and options exist. Those with `...` or variables are left out."""
    parser = build_parser()
    for line in commands(file):
        if line.startswith('sartm ') and '...' not in line and '$' not in line:
            parser.parse_args(shlex.split(line)[1:])


def test_the_readme_shows_the_verbs():
    shown = {line.split()[1] for line in commands(ROOT / 'README.md') if line.startswith('sartm ')}
    assert len(shown) >= 10


@pytest.mark.parametrize('file', DOCUMENTS, ids=lambda file: file.name)
def test_the_parameters_of_the_node_exist(file):
    """A name in backticks, maybe with a value, that begins as a group of parameters does."""
    groups = '|'.join(sorted({name.split('.')[0] for name in NAMES if '.' in name}))
    named = re.findall(rf'`((?:{groups})\.\w+)(?:: [^`]*)?`', file.read_text())
    endings = ('.py', '.csv', '.yaml', '.onnx')
    assert [n for n in named if n not in NAMES and not n.endswith(endings)] == []


@pytest.mark.parametrize('file', DOCUMENTS, ids=lambda file: file.name)
def test_the_make_targets_and_python_modules_exist(file):
    targets = re.findall(r'^([a-z-]+):', (ROOT / 'Makefile').read_text(), re.MULTILINE)
    text = file.read_text()
    named = re.findall(r'^make ([a-z-]+)|`make ([a-z-]+)', text, re.MULTILINE)
    assert [name for pair in named for name in pair if name and name not in targets] == []
    modules = re.findall(r'python3? -m ((?:sartm_model|sartm_ros|benchmarks|tools)[\w.]*)', text)
    assert [name for name in modules if find_spec(name) is None] == []


def test_the_python_in_the_readme_is_python():
    blocks = re.findall(r'```python\n(.*?)```', README, re.DOTALL)
    assert blocks
    for block in blocks:
        ast.parse(block)
