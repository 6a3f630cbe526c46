"""Label spaces from YAML files: names, colours, background and what is wrong with a file."""

from __future__ import annotations

import itertools

import pytest

from sartm_model.data.label_space_file import fill_colors, open_label_space
from sartm_model.errors import SartmError
from sartm_model.labels import MFNET, PST900, LabelSpace


def read(tmp_path, text: str) -> LabelSpace:
    (tmp_path / 'yard.yaml').write_text(text)
    return open_label_space('yard.yaml', tmp_path)


def test_names_with_and_without_colours(tmp_path):
    space = read(
        tmp_path,
        'name: depot\nbackground_id: 1\n'
        "names: [road, ground, {name: person, color: [9, 8, 7]}, {name: dog, color: '#0a0B0c'}]\n",
    )
    assert space.name == 'depot'
    assert space.classes == ('road', 'ground', 'person', 'dog')
    assert space.background_id == 1
    assert space.is_object().tolist() == [True, False, True, True]
    assert space.colors[1:] == ((0, 0, 0), (9, 8, 7), (10, 11, 12))


def test_a_list_alone_has_the_name_of_the_file_and_no_background(tmp_path):
    space = read(tmp_path, '- road\n- {name: person}\n')
    assert (space.name, space.classes, space.background_id) == ('yard', ('road', 'person'), None)
    assert space.is_object().all()


def test_built_in_label_spaces_by_name():
    assert open_label_space('mfnet') is MFNET
    assert open_label_space('pst900') is PST900
    with pytest.raises(SartmError, match="'voc'; expected one of mfnet, pst900, fmb, "):
        open_label_space('voc')


@pytest.mark.parametrize('classes', [2, 20, 255])
def test_generated_colours_are_far_apart(classes):
    colors = fill_colors([(250, 0, 0), *[None] * (classes - 1)])
    assert colors[0] == (250, 0, 0)
    assert colors == fill_colors([(250, 0, 0), *[None] * (classes - 1)])
    pairs = itertools.combinations((*colors, (0, 0, 0), (255, 255, 255)), 2)
    least = min(max(abs(a - b) for a, b in zip(*pair, strict=True)) for pair in pairs)
    assert least >= {2: 100, 20: 70, 255: 30}[classes]


@pytest.mark.parametrize(
    ('text', 'fault'),
    [
        ('', 'no list of class names'),
        ('names: road', 'no list of class names'),
        ('names: [a]\ncolours: [1]', "the key 'colours'; expected name, background_id, names"),
        ('names: [yes, no]', 'the class name True; expected a text'),
        ('names: [1, 2]', 'the class name 1; expected a text'),
        ('names: [a, a]', 'the class a twice in names'),
        ('names: []', 'has 0 classes'),
        (
            'names: [a, b]\nbackground_id: 2',
            r'background_id 2; expected the place .* \(0 to 1\), or null',
        ),
        ('names: [a, b]\nbackground_id: a', "background_id 'a'; expected the place of a class"),
        ('names: [{name: a, colour: [1, 2, 3]}]', "a class with the key 'colour'"),
        ('names: [{name: a, color: [1, 2, 300]}]', r'the color \[1, 2, 300\] of a'),
        ('names: [{name: a, color: red}]', "the color 'red' of a"),
        ('names: [a', 'cannot be read as YAML'),
    ],
)
def test_faults_name_the_file(tmp_path, text, fault):
    with pytest.raises(SartmError, match=fault) as caught:
        read(tmp_path, text)
    assert 'yard.yaml' in str(caught.value)
    assert '\n' not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(SartmError, match=r'none\.yaml does not exist'):
        open_label_space('none.yaml', tmp_path)
