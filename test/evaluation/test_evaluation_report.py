"""The page of `sartm evaluate --report`: its contents, and that a browser shows all of it."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from frame_list import FrameList
from html_page import Page
from PIL import Image
from untrained_checkpoint import save_untrained

from sartm_model.cli.main import main
from sartm_model.data.frame import Frame
from sartm_model.data.synthetic import render
from sartm_model.evaluation.evaluate import FramePrediction, evaluate
from sartm_model.evaluation.report.panels import rank
from sartm_model.evaluation.report.report import write_report
from sartm_model.labels import MFNET, LabelSpace

NAMES = ('00001D', '00002N', '00003N', '00004N', '00005D')
BROWSERS = ('chromium', 'chromium-browser', 'google-chrome')
SETTINGS = {
    'checkpoint': 'demo', 'dataset': 'mfnet', 'root': 'MFNet', 'split': 'val', 'modality': 'both',
    'modalities': ['rgb', 'thermal'], 'corruption': None, 'severity': None, 'head': 'mean',
    'flip': False, 'scales': [1.0], 'device': 'cpu', 'precision': 'fp32',
}  # fmt: skip


@pytest.fixture(scope='module')
def folder(tmp_path_factory) -> Path:
    """A small MFNet of generated frames, evaluated by the command with a report."""
    root = tmp_path_factory.mktemp('evaluation')
    for seed, name in enumerate(NAMES):
        condition = 'day' if name.endswith('D') else 'night'
        frame = render(seed, 96, 128, condition=condition)
        for part in ('rgb', 'thermal', 'labels'):
            (root / part).mkdir(exist_ok=True)
            image = getattr(frame, part)
            image = image[..., ::-1] if part == 'rgb' else image
            assert cv2.imwrite(str(root / part / f'{name}.png'), image)
    (root / 'val.txt').write_text('\n'.join(NAMES))
    checkpoint = save_untrained(root / 'nano.safetensors')
    arguments = ['--checkpoint', checkpoint, '--dataset', 'mfnet', '--root', root, '--split', 'val']
    arguments += ['--corruption', 'rgb_noise', '--severity', 2, '--head', 'auxiliary']
    arguments += ['--json', root / 'figures.json', '--report', root / 'report']
    assert main(['evaluate', *map(str, arguments)]) == 0
    return root


@pytest.fixture(scope='module')
def html(folder) -> str:
    assert [path.name for path in (folder / 'report').iterdir()] == ['report.html']
    return (folder / 'report' / 'report.html').read_text()


def test_tables_contain_the_metrics(folder, html):
    page = Page(html)
    figures = json.loads((folder / 'figures.json').read_text())
    means, classes, confusion, settings, versions = page.tables
    rows = {row[0]: row[1:] for row in means[1:]}
    assert means[0][1:] == ['all', 'day', 'night']
    groups = (figures, figures['day'], figures['night'])
    for key, text in (
        ('miou', 'mIoU, absent classes count 0 (9 classes)'),
        ('miou_foreground', 'mIoU without background (8 classes)'),
        ('ece', 'expected calibration error'),
        ('boundary_f1', 'boundary F1, classes present, without background'),
    ):
        assert rows[text] == [f'{group[key]:.1f} %' for group in groups]
    assert rows['frames'] == ['5', '2', '3']

    counts = np.array(figures['confusion'])
    for label, (name, row) in enumerate(zip(MFNET.classes, classes[2:], strict=True)):
        wanted = [name.replace('_', ' '), 100 * counts[label].sum() / counts.sum()]
        wanted += [group['per_class_iou'][name] for group in groups] + ['']
        wanted += [group['per_class_boundary_f1'][name] for group in groups]
        words = ['–' if w is None else w if isinstance(w, str) else f'{w:.1f} %' for w in wanted]
        assert row == words
    for label, row in enumerate(confusion[1:]):
        for count, cell in zip(counts[label], row[1:], strict=True):
            total = counts[label].sum()
            empty = '·' if total else '–'
            assert cell == (f'{100 * count / total:.1f}' if count else empty)

    assert dict(settings) | {'written': ''} == {
        **{key: str(value) for key, value in figures['settings'].items()},
        'modalities': 'rgb thermal', 'flip': 'no', 'scales': '1', 'written': '',
    }  # fmt: skip
    assert dict(versions)['torch'] == torch.__version__
    assert 'rgb noise, severity 2' in page.words
    assert 'auxiliary head alone' in page.words


def test_images_are_embedded_and_show_the_frames(folder, html):
    page = Page(html)
    assert page.headings == [
        'Means', 'Classes', 'Confusion', 'Curves', 'Best frames', 'Worst frames', 'Run'
    ]  # fmt: skip
    assert not re.search(r'(src|href)="(?!data:|#)', html)  # it needs nothing beside it
    assert '<script' not in html
    assert html.count('<svg') == html.count('</svg>') == 1
    assert all(text in page.words for text in ('Reliability', 'confidence (%)', 'sorted (%)'))
    assert len(page.images) == 4 * len(NAMES)  # each frame once: three best and two worst
    miou = json.loads((folder / 'figures.json').read_text())['frame_miou']
    ranked = sorted(NAMES, key=lambda name: -miou[name])
    shown = [image['alt'] for image in page.images]
    order = [*ranked[:3], ranked[4], ranked[3]]
    panels = ('RGB', 'thermal', 'ground truth', 'prediction')
    assert shown == [f'{panel} of {name}' for name in order for panel in panels]
    truth = next(image for image in page.images if image['alt'] == 'ground truth of 00002N')
    pixels = np.array(Image.open(io.BytesIO(base64.b64decode(truth['src'].partition(',')[2]))))
    labels = cv2.imread(str(folder / 'labels' / '00002N.png'), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(pixels, MFNET.palette()[labels])


def test_a_browser_shows_every_image(html, tmp_path):
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip(f'no browser: none of {", ".join(BROWSERS)} is installed')
    # A copy with a script that writes what the browser made of the page into the page.
    script = """<script>
        const count = tag => document.querySelectorAll(tag).length;
        const drawing = document.querySelector('svg').getBoundingClientRect();
        document.body.dataset.seen = JSON.stringify({
            pictures: [...document.images].map(image => image.naturalWidth),
            tables: count('table'), cells: count('td'), drawing: [drawing.width, drawing.height],
            wide: document.documentElement.scrollWidth});
        </script></body>"""
    page = tmp_path / 'page.html'
    page.write_text(html.replace('</body>', script))
    done = subprocess.run(
        [browser, '--headless', '--no-sandbox', '--disable-gpu', '--virtual-time-budget=10000',
         f'--user-data-dir={tmp_path / "profile"}', '--window-size=1300,900', '--dump-dom',
         page.as_uri()],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    seen = re.search(r'data-seen="([^"]*)"', done.stdout)
    assert seen, done.stderr[-2000:]
    found = json.loads(seen[1].replace('&quot;', '"'))
    assert found['pictures'] == [128] * 4 * len(NAMES)
    assert found['tables'] == 5
    assert found['cells'] > 9 * 9
    assert found['wide'] <= 1300
    width, height = found['drawing']
    assert width > 600
    assert height > 200


def test_names_are_escaped_and_missing_images_are_marked(tmp_path):
    space = LabelSpace('odd', ('<b>none</b>', 'a & "b"'), ((0, 0, 0), (255, 0, 0)))
    truth = np.array([[0, 1, 255, 255]], np.uint8)
    thermal = np.full((1, 4), 7, np.uint8)
    frames = FrameList([
        Frame('<script>alert(1)</script>', {'thermal': thermal}, truth),
        Frame('nothing labelled', {'thermal': thermal}, np.full((1, 4), 255, np.uint8)),
    ], space)  # fmt: skip

    def predict(frame):
        return FramePrediction(np.array([[0, 255, 1, 0]], np.uint8), np.ones((1, 4), np.float32))

    odd = {'checkpoint': '<i>x</i>.safetensors', 'modality': 'thermal', 'head': '<u>'}
    result = {**evaluate(predict, frames), 'settings': SETTINGS | odd}
    write_report(tmp_path / 'report', result, frames, predict)
    html = (tmp_path / 'report' / 'report.html').read_text()
    page = Page(html)
    assert not re.search('<(script|b>none|i>|u>)', html)
    means = {row[0] for row in page.tables[0]}  # the label space has no background
    assert 'boundary F1, classes present' in means
    assert not any('mIoU without background' in text for text in means)
    for text in ('<script>alert(1)</script>', '<b>none</b>', 'a & "b"', '<i>x</i>', '<u>'):
        assert text in page.words
    assert page.words.count('not given') == 1  # no RGB
    assert 'Worst frames' not in page.headings  # there is but one frame to rank
    assert [row[-1] for row in page.tables[2]] == ['unknown', '·', '100.0']


def test_best_and_worst_frames():
    miou = {str(n): float(n) for n in range(20)} | {'empty': None}
    assert rank(miou) == (['19', '18', '17', '16'], ['0', '1', '2', '3'])
    few = {'a': 1.0, 'b': 3.0, 'c': 2.0}
    assert rank(few) == (['b', 'c'], ['a'])
    assert rank({'a': 5.0}) == (['a'], [])
    assert rank({}) == ([], [])
