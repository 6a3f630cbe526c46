"""What the `sartm` command prints without doing anything: help, usage errors, missing plug-ins."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from command_line import expect_error, run

from sartm_model.cli.main import PLUGIN_GROUP, build_parser
from sartm_model.data import registry
from sartm_model.data.published import PublishedDataset
from sartm_model.errors import SartmError

pytestmark = pytest.mark.usefixtures('bag_verbs')

VERBS = (
    'predict',
    'evaluate',
    'align',
    'train',
    'calibrate',
    'pseudo-label',
    'data',
    'download',
    'info',
    'benchmark',
    'adapters',
    'export',
    'make-bag',
    'replay',
)


def help_of(capsys, *arguments: str) -> str:
    with pytest.raises(SystemExit) as stopped:
        run(*arguments, '--help')
    assert stopped.value.code == 0
    printed, errors = capsys.readouterr()
    assert not errors
    return printed


@pytest.mark.parametrize('verb', VERBS)
def test_every_verb_has_help_with_examples(capsys, verb):
    text = help_of(capsys, verb)
    assert f'usage: sartm {verb}' in text
    assert f'\nexamples:\n  sartm {verb}' in text


@pytest.mark.parametrize('verb', VERBS)
def test_the_examples_of_the_help_are_valid(capsys, verb):
    text = help_of(capsys, verb)
    examples = text.partition('\nexamples:\n')[2].replace('\n   ', ' ').strip().splitlines()
    for example in examples:
        words = example.split()
        assert words[:2] == ['sartm', verb]
        build_parser().parse_args(words[1:])


def test_the_verbs_that_run_exported_files_alone_offer_them(capsys):
    helps = {verb: ' '.join(help_of(capsys, verb).split()) for verb in VERBS}
    offering = [verb for verb, text in helps.items() if 'an .onnx file of sartm export' in text]
    assert offering == ['predict', 'evaluate', 'replay']


def test_the_help_lists_every_verb(capsys):
    listed = re.findall(r'^    ([a-z-]+)\s', help_of(capsys), re.MULTILINE)
    assert listed == list(VERBS)


def test_the_module_shows_help_and_imports_nothing_heavy():
    code = (
        'import runpy, sys\n'
        'sys.argv = ["sartm", "predict", "--help"]\n'
        'try: runpy.run_module("sartm_model.cli", run_name="__main__")\n'
        'except SystemExit: pass\n'
        'print(sorted({"torch", "numpy", "cv2", "rosbags", "rclpy"} & sys.modules.keys()))'
    )
    result = subprocess.run(
        [sys.executable, '-c', code],
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert 'usage: sartm predict' in result.stdout
    assert result.stdout.splitlines()[-1] == '[]', result.stderr


@pytest.mark.parametrize(
    ('arguments', 'expected'),
    [
        ([], 'VERB'),
        (['paint'], 'paint'),
        (['predict', '--rgb', 'a.png'], '--out'),
        (['predict', '--out', 'x'], 'neither --rgb nor --thermal'),
        (['predict', '--out', 'x', '--split', 'val'], 'a data set needs --dataset and --split'),
        (['predict', '--out', 'x', '--dataset', 'mfnet'], 'a data set needs --dataset and --split'),
        (['predict', '--rgb', 'a.png', '--out', 'x', '--precision', 'fp8'], 'fp8'),
        (['evaluate', '--dataset', 'coco', '--split', 'val'], 'coco'),
        (['evaluate', '--dataset', 'synthetic', '--split', 'val', '--corruption', 'fog'], 'fog'),
        (['evaluate', '--dataset', 'mfnet', '--split', 'val', '--severity', '6'], '6'),
        (['evaluate', '--dataset', 'mfnet', '--split', 'val', '--scales', 'big'], 'big'),
        (['make-bag', '--rgb', 'a', '--thermal', 'b', '--out', 'c', '--rate', 'fast'], 'fast'),
        (['replay', '/nowhere/bag', '--checkpoint', '/nowhere/f.safetensors'], '/nowhere/'),
        (['info', '/nowhere/f.safetensors'], '/nowhere/f.safetensors'),
    ],
)
def test_bad_usage_is_one_line_and_status_2(capsys, arguments, expected):
    assert expected in expect_error(capsys, None, *arguments)


def test_ctrl_c(monkeypatch):
    def interrupted(args):
        raise KeyboardInterrupt

    monkeypatch.setattr('sartm_model.cli.info.run', interrupted)
    assert run('info', 'demo') == 130


def test_the_data_sets_are_named_without_numpy():
    code = (
        'import sys; from sartm_model.cli.main import build_parser; build_parser();'
        "sys.exit('numpy' in sys.modules)"
    )
    subprocess.run([sys.executable, '-c', code], check=True)


@pytest.mark.parametrize('name', registry.ON_DISK)
def test_every_data_set_on_disk_can_be_opened(tmp_path, name):
    assert isinstance(registry.published(name), PublishedDataset)
    with pytest.raises(SartmError):
        registry.open_dataset(name, tmp_path, 'train')


def plugins(monkeypatch, **functions: str) -> None:
    """Let these entry points, function by verb, be the only ones that are installed."""
    entries = [EntryPoint(verb, function, PLUGIN_GROUP) for verb, function in functions.items()]
    monkeypatch.setattr('sartm_model.cli.main.entry_points', lambda group: entries)


def test_a_broken_plugin_costs_only_its_own_verb(capsys, monkeypatch):
    plugins(monkeypatch, paint='no_such_package.cli:add', replay='sartm_ros.bag.cli:add_replay')
    verbs = build_parser().format_help()
    assert 'replay' in verbs
    assert 'predict' in verbs
    assert 'paint' not in verbs
    printed, warning = capsys.readouterr()
    assert not printed
    assert len(warning.splitlines()) == 1
    assert 'paint' in warning
    assert 'no_such_package' in warning


def test_a_package_that_is_missing_is_named(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, 'peft', None)
    line = expect_error(capsys, None, 'info', 'demo')
    assert 'package peft is not installed; docs/workspace.md says' in line


def test_without_plugins_the_other_verbs_work(monkeypatch):
    plugins(monkeypatch)
    verbs = build_parser().format_help()
    assert 'predict' in verbs
    assert 'replay' not in verbs


def test_a_reader_that_stops_early_causes_no_traceback():
    process = subprocess.Popen(
        [sys.executable, '-m', 'sartm_model.cli', 'info', 'demo'],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    process.stdout.close()
    assert process.stderr.read() == ''
    process.stderr.close()
    assert process.wait(timeout=60) == 141
