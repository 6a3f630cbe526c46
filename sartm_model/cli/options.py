"""Options that several verbs share, and what is made of them."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sartm_model.data import registry
from sartm_model.errors import SartmError
from sartm_model.utils.text import compare_classes

if TYPE_CHECKING:
    from sartm_model.data.base import FrameDataset
    from sartm_model.inference.onnx_predictor import OnnxPredictor
    from sartm_model.inference.predictor import Predictor
    from sartm_model.labels import LabelSpace

Verbs = argparse._SubParsersAction  # argparse has no public name for what add_subparsers returns

Options = argparse._ActionsContainer  # a verb, or a group of its options

MODEL_DEFAULTS = {'checkpoint': 'demo', 'device': 'auto', 'precision': 'auto'}

PARAMS_PLUGIN = 'sartm.params'
"""Entry points of a function that returns the `NodeSettings` of a parameter file."""


class NodeSettings(NamedTuple):
    """What the node's parameters say of the network and its images.

    Attributes:
        predictor: keyword arguments of `open_predictor.open_predictor`.
        thermal_shift: bits by which thermal counts of 16 bits are shifted down.
    """

    predictor: dict[str, Any]
    thermal_shift: int


def positive(text: str) -> int:
    """Convert the value of an option to a whole number of 1 or more; the `type` of such options."""
    return _at_least(1, text)


def not_negative(text: str) -> int:
    """Convert the value of an option to a whole number of 0 or more; the `type` of such options."""
    return _at_least(0, text)


def _at_least(smallest: int, text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = smallest - 1
    if value < smallest:
        raise argparse.ArgumentTypeError(
            f'{text!r} is given; expected a whole number of {smallest} or more'
        )
    return value


def add_verb(
    verbs: Verbs,
    name: str,
    run: Callable[[argparse.Namespace], int | None],
    description: str,
    examples: str,
) -> argparse.ArgumentParser:
    """Add a verb to the command.

    Args:
        verbs: the verbs of the command.
        name: what the user types.
        run: called with the parsed arguments; what it returns is the exit status (None: 0).
        description: opens the help of the verb; its first sentence stands in the list of verbs.
        examples: command lines, one a line.
    """
    verb: argparse.ArgumentParser = verbs.add_parser(
        name,
        help=description.split('.')[0],
        description=description,
        epilog='examples:\n' + '\n'.join(f'  {line}' for line in examples.splitlines()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verb.set_defaults(run=run)
    return verb


def add_model(
    verb: argparse.ArgumentParser,
    checkpoint: str = 'a .safetensors checkpoint, an .onnx file of sartm export, or one that comes '
    'with the package: demo (RGB and thermal) or demo_depth (default: demo)',
) -> None:
    """Add the options that `predictor_from_options` reads.

    Args:
        verb: the verb.
        checkpoint: the help of --checkpoint, for a verb that does not take all of these files.
    """
    verb.add_argument(
        '--checkpoint', metavar='F', default=MODEL_DEFAULTS['checkpoint'], help=checkpoint
    )
    verb.add_argument(
        '--device',
        default=MODEL_DEFAULTS['device'],
        help="'cpu', 'cuda' or 'cuda:N' (default: auto, a GPU if there is one)",
    )
    verb.add_argument(
        '--precision',
        choices=('auto', 'fp32', 'fp16', 'bf16'),
        default=MODEL_DEFAULTS['precision'],
        help='of the network (default: auto, fp16 on a GPU and fp32 on a CPU)',
    )


def add_params(verb: argparse.ArgumentParser, what: str) -> None:
    """Add --params, after `add_model`; options that are given count more than the file.

    Args:
        verb: the verb.
        what: the parameters that count in it.
    """
    verb.add_argument(
        '--params',
        metavar='FILE',
        type=Path,
        help=f"the node's parameter file, such as config/sartm.yaml, for {what}",
    )
    verb.set_defaults(**dict.fromkeys(MODEL_DEFAULTS))


def read_params(args: argparse.Namespace) -> NodeSettings:
    """Return the settings of the file --params, or the defaults without it.

    Raises:
        SartmError: the file cannot be used, or the package that has the node is not installed.
    """
    if getattr(args, 'params', None) is None:
        return NodeSettings({}, 0)
    for entry in entry_points(group=PARAMS_PLUGIN):
        settings: NodeSettings = entry.load()(args.params)
        return settings
    raise SartmError(
        '--params needs the package sartm_ros, installed by its present setup.py: make setup'
    )


def predictor_from_options(
    args: argparse.Namespace,
    label_space: LabelSpace | None = None,
    *,
    params: Mapping[str, Any] | None = None,
) -> Predictor | OnnxPredictor:
    """Return the predictor of `add_model`'s options, and of --head, --homography and --params.

    `args.checkpoint` is then the one that was opened.

    Args:
        args: the options.
        label_space: see `Predictor`; an exported file has its own.
        params: what --params says of the predictor, for a verb that has read the file already.
    """
    from sartm_model.inference.open_predictor import open_predictor
    from sartm_model.registration.homography import read_homography

    if params is None:
        params = read_params(args).predictor
    options = {**MODEL_DEFAULTS, **params}
    for name in MODEL_DEFAULTS:
        if getattr(args, name) is not None:
            options[name] = getattr(args, name)
    if getattr(args, 'homography', None) is not None:
        options['homography'] = read_homography(args.homography)
    args.checkpoint = options['checkpoint']
    if not args.checkpoint.endswith('.onnx'):
        options['label_space'] = label_space
    return open_predictor(**options, head=getattr(args, 'head', None))


def open_for_dataset(args: argparse.Namespace, dataset: FrameDataset) -> Predictor | OnnxPredictor:
    """Return the predictor of `predictor_from_options`, after a look at the classes of a data set.

    Raises SartmError if the checkpoint knows other classes than the data set.
    """
    predictor = predictor_from_options(args, dataset.label_space)
    if predictor.label_space.classes != dataset.label_space.classes:
        raise SartmError(
            f'checkpoint {args.checkpoint} knows the classes of {predictor.label_space.name!r}, '
            f'but {args.dataset} has those of {dataset.label_space.name!r}: '
            f'{compare_classes(predictor.label_space, dataset.label_space)}'
        )
    return predictor


def add_dataset(verb: Options, required: bool = True) -> None:
    """Add --dataset and --root."""
    verb.add_argument('--dataset', choices=registry.NAMES, required=required)
    verb.add_argument(
        '--root',
        metavar='DIR',
        type=Path,
        help="the data set's folder; for 'folder' the YAML file that declares it, see "
        'sartm data init',
    )


def add_size(verb: argparse.ArgumentParser, subject: str) -> None:
    """Add --height and --width of an image in pixels, 480 and 640 by default."""
    for side, pixels in (('height', 480), ('width', 640)):
        verb.add_argument(
            f'--{side}',
            metavar='PX',
            type=positive,
            default=pixels,
            help=f'of {subject} (default: %(default)s)',
        )


def add_modality(verb: argparse.ArgumentParser) -> None:
    """Add --modality, the images that the network is given."""
    verb.add_argument(
        '--modality',
        metavar='NAME',
        default='both',
        help="the images that the network is given: 'both' for all, or the modalities by name, "
        'such as thermal or rgb,depth (default: %(default)s)',
    )


def parse_x(text: str) -> tuple[str, Path]:
    """Return modality and path of '--x NAME=PATH'. Raises SartmError if it is not that."""
    from sartm_model.modalities import MODALITIES

    name, _, path = text.partition('=')
    others = [other for other in MODALITIES if other != 'rgb']
    if name not in others or not path:
        raise SartmError(
            f'--x is {text!r}; expected NAME=PATH with one of {", ".join(others)}, such as '
            'depth=depth/'
        )
    return name, Path(path)


def add_scales(verb: Options) -> None:
    """Add `--scales`, the sizes of the images over which probabilities are averaged."""
    verb.add_argument(
        '--scales',
        metavar='S',
        type=float,
        nargs='+',
        default=[1.0],
        help='average over the images at these factors of their size (default: 1)',
    )


def add_homography(verb: argparse.ArgumentParser) -> None:
    """Add --homography."""
    verb.add_argument(
        '--homography',
        metavar='FILE',
        type=Path,
        help='warp thermal onto RGB by this file of sartm align (default: resize it)',
    )


def add_json(verb: argparse.ArgumentParser) -> None:
    """Add --json."""
    verb.add_argument(
        '--json', metavar='FILE', type=Path, help='write the JSON to a file instead of printing it'
    )
