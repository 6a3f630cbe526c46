"""Label spaces that unify others: names, ids, views, what is refused, samples of several sets."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml

from sartm_model.config import DataConfig, SourceConfig
from sartm_model.data.sampling import TrainingSamples
from sartm_model.data.unified_labels import open_run_label_space, unify
from sartm_model.errors import SartmError
from sartm_model.labels import LABEL_SPACES, LabelSpace

FIVE = Path(__file__).resolve().parents[2] / 'config' / 'label_spaces' / 'rgbx.yaml'


def space(name: str, classes: str, background_id: int | None = None) -> LabelSpace:
    names = classes.split()
    colors = tuple((10 * i, len(name), 50) for i in range(len(names)))
    return LabelSpace(name, tuple(names), colors, background_id)


STREET = space('street', 'none road cars person', 0)
PARK = space('park', 'person grass vehicle road')
ROOM = space('room', 'wall person background', 2)
SYNONYMS = {'car': ['cars', 'vehicle'], 'background': 'none'}


def test_the_union_has_each_class_once():
    union = unify('all', [STREET, PARK, ROOM], SYNONYMS)
    assert union.classes == ('background', 'road', 'car', 'person', 'grass', 'wall')
    assert union.background_id == 0
    assert len(set(union.colors)) == len(union)
    assert union.colors[:4] == STREET.colors
    assert [view.ids for view in union.views] == [(0, 1, 2, 3), (3, 4, 2, 1), (5, 3, 0)]
    assert union.ids_of(PARK) == (3, 4, 2, 1)
    assert union.ids_of(union) == tuple(range(6))
    assert union.ids_of(space('other', 'grass person')) is None
    stored = json.loads(json.dumps(union.to_dict()))
    assert LabelSpace.from_dict(stored) == union
    assert 'views' not in STREET.to_dict()  # files of an ordinary run stay as they were


def test_a_class_of_one_label_space_can_have_a_name_of_its_own():
    union = unify('all', [STREET, PARK], {**SYNONYMS, 'path': 'park.road'})
    assert union.classes == ('background', 'road', 'car', 'person', 'grass', 'path')
    assert union.views[1].ids == (3, 4, 2, 5)


@pytest.mark.parametrize(
    ('synonyms', 'fault'),
    [
        ({'car': ['cars', 'lorry']}, r"synonym 'lorry' of 'car'; expected a class of street, park"),
        ({'car': 'cars', 'auto': 'cars'}, "synonym 'cars' of 'car' and of 'auto'"),
        ({'way': ['road', 'grass']}, 'one class, way, of grass and road of park'),
        ({'person': 'cars'}, 'one class, person, of cars and person of street'),
        (['cars'], r'has synonyms: \[.cars.\]; expected {car'),
        ({}, 'leaves background, none as background classes'),
    ],
)
def test_unions_that_cannot_be(synonyms, fault):
    with pytest.raises(SartmError, match=fault) as caught:
        unify('all', [STREET, PARK, ROOM], synonyms)
    assert '\n' not in str(caught.value)


def test_the_five_data_sets():
    union = open_run_label_space(str(FIVE))
    names = ('deliver', 'mfnet', 'nyuv2', 'urbanlf', 'zju_rgb_p')
    assert [view.space for view in union.views] == [LABEL_SPACES[name] for name in names]
    # DELIVER 25; MFNet without car, person and bike; NYUv2 without person; rider; glass
    assert len(union) == 25 + 6 + 39 + 1 + 1
    assert union.background_id == union.classes.index('unlabeled')

    def called(unified: str) -> dict[str, str]:
        id_ = union.classes.index(unified)
        return {
            view.space.name: view.space.classes[view.ids.index(id_)]
            for view in union.views
            if id_ in view.ids
        }

    street = {'deliver': 'cars', 'mfnet': 'car', 'urbanlf': 'vehicle', 'zju_rgb_p': 'car'}
    assert called('car') == street
    assert set(called('person')) == set(names)
    assert called('wall') == {'deliver': 'wall'}
    assert called('room_wall') == {'nyuv2': 'wall'}


@pytest.mark.parametrize(
    ('text', 'fault'),
    [
        ('label_spaces: []', r'has label_spaces: \[\]; expected a list'),
        ('label_spaces: [mfnet, voc]', "'voc'; expected one of mfnet"),
        ('{label_spaces: [mfnet], merge: {}}', "has the key 'merge'; expected name, label_spaces"),
        ('{label_spaces: [mfnet], synonyms: {a: [car], a: [bike]}}', "has the key 'a' twice"),
    ],
)
def test_faults_of_the_file(tmp_path, text, fault):
    path = tmp_path / 'union.yaml'
    path.write_text(text)
    with pytest.raises(SartmError, match=fault):
        open_run_label_space(str(path))


def test_ordinary_label_spaces_are_opened_as_before(tmp_path):
    assert open_run_label_space('mfnet') is LABEL_SPACES['mfnet']
    (tmp_path / 'yard.yaml').write_text('[road, person]')
    assert open_run_label_space(str(tmp_path / 'yard.yaml')).classes == ('road', 'person')
    (tmp_path / 'union.yaml').write_text('label_spaces: [yard.yaml, mfnet]')
    union = open_run_label_space(str(tmp_path / 'union.yaml'))
    assert union.classes[:3] == ('road', 'person', 'unlabeled')


# samples


def write_frames(root: Path, own: LabelSpace, frames: int = 3) -> Path:
    """Frames whose red channel shows the own id of each pixel, 255 where it is not labelled."""
    rng = np.random.default_rng(len(own.name))
    for number in range(frames):
        ids = rng.choice([*range(len(own)), 255], (16, 16)).astype(np.uint8)
        for folder in ('rgb', 'thermal', 'masks'):
            (root / folder).mkdir(parents=True, exist_ok=True)
            image = np.dstack([ids, ids, ids]) if folder == 'rgb' else ids
            cv2.imwrite(str(root / folder / f'{own.name}{number}.png'), image)
    declaration = {
        'label_space': {
            'name': own.name, 'names': list(own.classes), 'background_id': own.background_id
        },
        'images': {'rgb': 'rgb/{stem}.png', 'thermal': 'thermal/{stem}.png'},
        'labels': 'masks/{stem}.png',
        'splits': {'train': [f'{own.name}{number}' for number in range(frames)]},
    }  # fmt: skip
    (root / 'data.yaml').write_text(yaml.safe_dump(declaration))
    return root / 'data.yaml'


def test_samples_of_each_data_set_have_the_ids_of_the_run(tmp_path):
    spaces = (STREET, PARK, ROOM)
    union = unify('all', spaces, SYNONYMS)
    config = DataConfig(
        train=[
            SourceConfig('folder', str(write_frames(tmp_path / own.name, own))) for own in spaces
        ],
        crop_height=16,
        crop_width=16,
        scale_min=1.0,
        scale_max=1.0,
        colour_jitter=0.0,
        paste_objects=0.5,
        object_crop=0.5,
    )
    samples = TrainingSamples(config, union, ('rgb', 'thermal'), seed=3)
    expected_names = {
        'street': ['background', 'road', 'car', 'person'],
        'park': ['person', 'grass', 'car', 'road'],
        'room': ['wall', 'person', 'background'],
    }
    seen, exact = set(), 0
    for index in range(40):
        sample = samples[index]
        own = sample.name.rstrip('0123456789')
        seen.add(own)
        names = expected_names[own]
        ids = [union.classes.index(name) for name in names]
        labelled = np.flatnonzero(~sample.excluded.numpy())
        assert labelled.tolist() == sorted(ids)
        shown = sample.images['rgb'].numpy()[..., 0]
        if set(np.unique(shown)) <= {*range(len(names)), 255}:  # else it is blurred
            expected = np.select([shown == k for k in range(len(names))], ids, 255)
            np.testing.assert_array_equal(sample.labels.numpy(), expected)
            exact += 1
    assert seen == {'street', 'park', 'room'}
    assert exact > 20
    batch = torch.utils.data.default_collate([samples[0], samples[1]])
    assert batch.excluded.shape == (2, 6)


def test_a_data_set_that_is_not_part_of_the_union_is_refused(tmp_path):
    other = space('sea', 'water ship')
    source = SourceConfig('folder', str(write_frames(tmp_path, other)))
    union = unify('all', [STREET, PARK], SYNONYMS)
    with pytest.raises(SartmError, match=r'unifies street, park, but .* classes of sea: only'):
        TrainingSamples(DataConfig(train=[source]), union, ('rgb', 'thermal'), seed=0)
