"""The text teacher: open_clip's text encoders with random weights, and real embeddings."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from small_clip import SMALL, register

from sartm_model.config import TextConfig
from sartm_model.errors import SartmError
from sartm_model.labels import FMB, LABEL_SPACES, MFNET, PST900, LabelSpace
from sartm_model.training.text_teacher import class_words, encode, text_embeddings

ROOT = Path(__file__).resolve().parents[2]

OPEN_CLIP = pytest.mark.skipif(
    find_spec('open_clip') is None, reason='open_clip is not installed; make setup installs it'
)


@pytest.fixture
def small(tmp_path):
    """Register the small model with open_clip and save random weights for it; its settings."""
    register(tmp_path)
    return TextConfig(model='small-test', pretrained=str(weights_file(tmp_path / 'a.safetensors')))


def weights_file(path, seed=0):
    import open_clip

    torch.manual_seed(seed)
    save_file(open_clip.create_model('small-test').state_dict(), path)
    return path


def by_hand(config, phrases, quick_gelu=False):
    """Embeddings a prompt at a time: normalise, average over the templates, normalise."""
    import open_clip
    from safetensors.torch import load_file

    model = open_clip.create_model('small-test', force_quick_gelu=quick_gelu).eval()
    model.load_state_dict(load_file(config.pretrained))
    tokenizer = open_clip.get_tokenizer('small-test')
    rows = []
    for phrase in phrases:
        total = np.zeros(24)
        for template in config.templates:
            with torch.no_grad():
                row = model.encode_text(tokenizer([template.format(name=phrase)]))[0].numpy()
            total += row / np.sqrt((row**2).sum())
        rows.append(total / np.sqrt((total**2).sum()))
    return np.array(rows)


@OPEN_CLIP
def test_templates_are_averaged_after_normalising(small, tmp_path):
    templates = ['a {name}', 'a blurred photo of one {name} at night', '{name}']
    config = TextConfig(model=small.model, pretrained=small.pretrained, templates=templates)
    embeddings = text_embeddings(config, PST900, tmp_path)
    phrases = ['fire extinguisher', 'backpack', 'hand drill', 'person']
    np.testing.assert_allclose(embeddings[1:], by_hand(config, phrases), atol=1e-5)
    assert embeddings.any(dim=1).tolist() == [False, True, True, True, True]
    assert embeddings.dtype == torch.float32


@OPEN_CLIP
def test_a_tag_brings_its_activation(small, tmp_path, monkeypatch):
    """OpenAI's weights were trained with another GELU than the model of that name has."""
    import open_clip

    entry = {'file': small.pretrained, 'quick_gelu': True}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, 'small-test', {'openai': entry})
    found = text_embeddings(TextConfig(model='small-test'), PST900, tmp_path)
    np.testing.assert_allclose(found[2], by_hand(small, ['backpack'], True)[0], atol=1e-5)
    assert np.abs(found[2].numpy() - by_hand(small, ['backpack'])[0]).max() > 1e-4


@OPEN_CLIP
def test_vit_b_32_with_random_weights():
    """The real text encoder; the image encoder, which is not used, is made small."""
    import open_clip

    text_encoder = open_clip.create_model('ViT-B-32', vision_cfg=SMALL['vision_cfg']).eval()
    tokenizer = open_clip.get_tokenizer('ViT-B-32')
    found = encode(text_encoder, tokenizer, ['car', '', 'traffic cone'], ['a {name}'])
    assert found.shape == (3, 512)
    assert found.norm(dim=1).tolist() == pytest.approx([1, 0, 1], abs=1e-5)
    assert found[0] @ found[2] < 0.999


@OPEN_CLIP
def test_what_was_computed_is_kept_beside_the_run(small, tmp_path):
    out = tmp_path / 'run'
    first = text_embeddings(small, FMB, out)
    assert [path.name for path in out.iterdir()] == ['text.safetensors']
    with safe_open(out / 'text.safetensors', framework='pt') as file:
        metadata = file.metadata()
    request = json.loads(metadata['request'])
    assert (request['model'], request['pretrained']) == ('small-test', small.pretrained)
    # In a process where the small model is unknown and open_clip has not been imported.
    done = subprocess.run(
        [
            sys.executable,
            '-c',
            'import sys\n'
            'from pathlib import Path\n'
            'from sartm_model.config import TextConfig\n'
            'from sartm_model.labels import FMB\n'
            'from sartm_model.training.text_teacher import text_embeddings\n'
            "config = TextConfig(model='small-test', pretrained=sys.argv[1])\n"
            'embeddings = text_embeddings(config, FMB, Path(sys.argv[2]))\n'
            'print(embeddings.shape, int(embeddings.any(dim=1).sum()))\n'
            "sys.exit('open_clip' in sys.modules)\n",
            small.pretrained,
            str(out),
        ],
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f'{first.shape} {int(first.any(dim=1).sum())}'


@OPEN_CLIP
def test_a_cache_of_something_else_is_not_used(small, tmp_path):
    def changed(config, space=PST900):
        found = text_embeddings(config, space, tmp_path)
        return not torch.equal(found, first)

    first = text_embeddings(small, PST900, tmp_path)
    assert not changed(small)
    settings = {'model': small.model, 'pretrained': small.pretrained}
    assert changed(TextConfig(**settings, templates=['one {name}']))
    assert changed(TextConfig(**settings, names={'survivor': 'human'}))
    assert not changed(small)
    weights_file(Path(small.pretrained), seed=1)
    assert changed(small)
    weights_file(Path(small.pretrained), seed=0)
    (tmp_path / 'text.safetensors').write_bytes(b'damaged')
    assert not changed(small)


@OPEN_CLIP
def test_weights_that_cannot_be_had(small, tmp_path):
    wrong = tmp_path / 'wrong.safetensors'
    save_file({'a': torch.zeros(1)}, wrong)
    for config in (
        TextConfig(model='no-such-model'),
        TextConfig(model='small-test', pretrained='no-such-tag'),
        TextConfig(model='small-test', pretrained=''),
        TextConfig(model='small-test', pretrained=str(wrong)),
    ):
        with pytest.raises(SartmError, match=r'cannot be loaded .* text\.embeddings') as caught:
            text_embeddings(config, PST900, tmp_path)
        assert '\n' not in str(caught.value)
    assert not (tmp_path / 'text.safetensors').exists()


@OPEN_CLIP
def test_without_network_the_error_says_what_to_give(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', True)
    monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(tmp_path / 'cache'))
    with pytest.raises(SartmError, match=r"'openai' cannot be loaded .* give a precomputed file"):
        text_embeddings(TextConfig(), MFNET, tmp_path)


def test_without_open_clip_the_error_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'open_clip', None)
    with pytest.raises(SartmError, match=r'install open_clip_torch \(requirements/training'):
        text_embeddings(TextConfig(), MFNET, tmp_path)


def test_words_are_configured_built_in_or_the_name():
    for space in LABEL_SPACES.values():
        words = class_words(TextConfig(), space)
        assert tuple(words) == space.classes
        for phrase, is_object in zip(words.values(), space.is_object(), strict=True):
            assert '_' not in phrase
            assert bool(phrase) == is_object  # the background has no looks
    assert class_words(TextConfig(), MFNET)['color_cone'] == 'traffic cone'
    assert class_words(TextConfig(), FMB)['traffic_sign'] == 'traffic sign'
    named = class_words(TextConfig(names={'unlabeled': 'street', 'car': ''}), MFNET)
    assert (named['unlabeled'], named['car']) == ('street', '')
    with pytest.raises(SartmError, match=r'text\.names has tram; expected classes of mfnet'):
        class_words(TextConfig(names={'tram': 'tram'}), MFNET)


def test_only_the_background_of_the_label_space_has_no_words():
    colors = ((0, 0, 0),) * 3
    names = ('background', 'bike', 'sky')
    for background_id, expected in (
        (0, ['', 'bicycle', 'sky']),
        (1, ['background', '', 'sky']),
        (2, ['background', 'bicycle', '']),
        (None, ['background', 'bicycle', 'sky']),
    ):
        space = LabelSpace('own', names, colors, background_id)
        assert list(class_words(TextConfig(), space).values()) == expected
    configured = TextConfig(names={'bike': 'motorbike'})
    assert class_words(configured, LabelSpace('own', names, colors, 1))['bike'] == 'motorbike'


def test_the_file_of_real_embeddings(real_data, tmp_path):
    """Four of CLIP's embeddings: MFNet's classes of these names or words, and no others."""
    path = real_data / 'clip_text' / 'clip_vit_b32_text.npz'
    embeddings = text_embeddings(TextConfig(embeddings=str(path)), MFNET, tmp_path)
    found = [
        name for name, there in zip(MFNET.classes, embeddings.any(dim=1), strict=True) if there
    ]
    assert found == ['car', 'person', 'bike', 'color_cone']
    rows = embeddings[embeddings.any(dim=1)]
    cosines = rows @ rows.T
    np.testing.assert_allclose(cosines.diag(), 1, atol=1e-6)
    apart = cosines[~torch.eye(4, dtype=torch.bool)]
    assert apart.min().item() == pytest.approx(0.73, abs=0.005)
    assert apart.max().item() == pytest.approx(0.88, abs=0.005)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ('space', 'names', 'rows'),
    [
        (MFNET, {}, {'car': 'car_(automobile)', 'person': 'person', 'bike': 'bicycle'}),
        (
            MFNET,
            {'color_cone': 'cone'},
            {
                'car': 'car_(automobile)',
                'person': 'person',
                'bike': 'bicycle',
                'color_cone': 'cone',
            },
        ),
        (
            PST900,
            {'hand_drill': 'drill'},
            {
                'fire_extinguisher': 'fire_extinguisher',
                'backpack': 'backpack',
                'hand_drill': 'drill',
                'survivor': 'person',
            },
        ),
    ],
)
def test_the_file_of_real_embeddings_of_lvis(real_data, tmp_path, space, names, rows):
    path = real_data / 'clip_text' / 'clip_vit_b32_lvis.npz'
    config = TextConfig(embeddings=str(path), names=names)
    embeddings = text_embeddings(config, space, tmp_path)
    found = [
        name for name, there in zip(space.classes, embeddings.any(dim=1), strict=True) if there
    ]
    assert found == list(rows)
    with np.load(path) as file:
        all_names, all_rows = list(file['names']), file['embeddings'].astype(np.float64)
    for name, lvis_name in rows.items():
        row = all_rows[all_names.index(lvis_name)]
        expected = row / np.linalg.norm(row)
        np.testing.assert_allclose(embeddings[space.classes.index(name)], expected, atol=1e-6)


def test_a_name_with_an_explanation_is_found_unless_two_have_the_same_words(tmp_path):
    names = ['car_(automobile)', 'person', 'bicycle', 'bicycle_(toy)', 'traffic_cone']
    np.savez(tmp_path / 'text.npz', names=np.array(names), embeddings=np.eye(5) + 1)
    config = TextConfig(embeddings=str(tmp_path / 'text.npz'))
    embeddings = text_embeddings(config, MFNET, tmp_path)
    # 'bicycle' is in the file itself.
    assert embeddings.any(dim=1).nonzero()[:, 0].tolist() == [1, 2, 3, 7]
    assert embeddings.argmax(dim=1)[[1, 2, 3, 7]].tolist() == [0, 1, 2, 4]
    names[2] = 'bicycle_(real)'
    np.savez(tmp_path / 'text.npz', names=np.array(names), embeddings=np.eye(5) + 1)
    embeddings = text_embeddings(config, MFNET, tmp_path)
    assert embeddings.any(dim=1).nonzero()[:, 0].tolist() == [1, 2, 7]


@pytest.mark.parametrize('kind', ['npz', 'safetensors'])
def test_a_file_is_matched_by_class_name_before_words(kind, tmp_path):
    path = tmp_path / f'text.{kind}'
    names = ['traffic cone', 'color_cone', 'car', 'tree', 'unlabeled']
    rows = np.eye(5, 3, dtype=np.float64) * 5 + 1
    if kind == 'npz':
        np.savez(path, names=np.array(names), embeddings=rows)
    else:
        save_file({'embeddings': torch.from_numpy(rows)}, path, {'names': json.dumps(names)})
    embeddings = text_embeddings(TextConfig(embeddings=str(path)), MFNET, tmp_path)
    assert embeddings.any(dim=1).nonzero()[:, 0].tolist() == [1, 7]
    np.testing.assert_allclose(embeddings[7], rows[1] / np.linalg.norm(rows[1]), rtol=1e-6)
    assert embeddings.dtype == torch.float32


@pytest.mark.parametrize(
    ('names', 'embeddings', 'fault'),
    [
        (['tree', 'sky'], np.ones((2, 3)), 'holds tree, sky; expected at least two of'),
        (['car', 'sky'], np.ones((2, 3)), 'at least two of'),
        (['car', 'person'], np.ones((3, 3)), r'2 names and embeddings \[3, 3\]'),
        (['car', 'person'], np.ones(2), r'embeddings \[2\]'),
        ([], np.ones((0, 3)), '0 names'),
        (['car', 'person'], np.array([[1, 2], [np.nan, 1]]), 'NaN'),
        (['car', 'person'], np.array([[1, 2], [0, 0]]), 'row of zeros'),
        (['car', 'person'], np.array(['a', 'b']), 'cannot be read'),
        ([{'car': 1}, 'person'], np.ones((2, 3)), 'cannot be read .*allow_pickle'),
    ],
)
def test_files_that_cannot_be_used(names, embeddings, fault, tmp_path):
    path = tmp_path / 'text.npz'
    np.savez(path, names=np.array(names), embeddings=embeddings)
    with pytest.raises(SartmError, match=fault):
        text_embeddings(TextConfig(embeddings=str(path)), MFNET, tmp_path)


def test_files_of_another_kind_are_named(tmp_path):
    torch.save({'names': ['car'], 'embeddings': torch.ones(1, 3)}, tmp_path / 'text.pt')
    (tmp_path / 'damaged.npz').write_bytes(b'PK\x03\x04')
    (tmp_path / 'damaged.safetensors').write_bytes(b'')
    save_file({'embeddings': torch.ones(1, 3)}, tmp_path / 'nameless.safetensors')
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(SartmError, match=f'{path.name} cannot be read .*expected a .npz of'):
            text_embeddings(TextConfig(embeddings=str(path)), MFNET, tmp_path)
    with pytest.raises(SartmError, match='no text embeddings'):
        text_embeddings(TextConfig(embeddings=str(tmp_path / 'none.npz')), MFNET, tmp_path)
