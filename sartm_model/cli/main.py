"""The `sartm` command: what can be typed. What is then done is in `sartm_model.cli.commands`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from sartm_model.cli import commands
from sartm_model.config import SIZES
from sartm_model.errors import SartmError

USER_ERROR = 2
INTERRUPTED = 130  # what a shell reports of a process that Ctrl-C ended

# Those of `sartm_model.evaluation.corruptions`, which imports more than the help may wait for.
CORRUPTIONS = (
    'thermal_shift',
    'thermal_noise',
    'thermal_freeze',
    'thermal_blackout',
    'rgb_dark',
    'rgb_glare',
    'rgb_noise',
)


class _Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, like all errors here."""

    def error(self, message: str) -> NoReturn:
        self.exit(USER_ERROR, f'{self.prog}: error: {message} (see {self.prog} --help)\n')


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (the process's own where left out) and return its exit status.

    0 is success, 1 faults that `data check` found, 2 bad input, which one line on stderr
    describes, 130 Ctrl-C.
    """
    args = _parser().parse_args(argv)
    try:
        status = args.run(args)
    except KeyboardInterrupt:
        return INTERRUPTED
    except SartmError as error:
        message = str(error)
    except MemoryError as error:
        message = str(error) or 'out of memory'
    except OSError as error:
        if error.filename is None:
            raise
        message = f'{error.filename}: {error.strerror}'
    else:
        return status or 0
    print(f'sartm {args.verb}: error: {" ".join(message.split())}', file=sys.stderr)
    return USER_ERROR


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog='sartm',
        description='RGB-thermal semantic segmentation: predict, evaluate, train, data, bags.',
    )
    verbs = parser.add_subparsers(dest='verb', required=True, metavar='VERB')
    _add_predict(verbs)
    _add_evaluate(verbs)
    _add_align(verbs)
    _add_train(verbs)
    _add_data(verbs)
    _add_download(verbs)
    _add_info(verbs)
    _add_benchmark(verbs)
    _add_adapters(verbs)
    _add_export(verbs)
    _add_make_bag(verbs)
    _add_replay(verbs)
    return parser


def _add(
    verbs: argparse._SubParsersAction,
    name: str,
    run: Callable[[argparse.Namespace], int | None],
    text: str,
    examples: str,
) -> argparse.ArgumentParser:
    """A verb whose help opens with `text` (its first sentence in the list of verbs)."""
    verb: argparse.ArgumentParser = verbs.add_parser(
        name,
        help=text.split('.')[0],
        description=text,
        epilog='examples:\n' + '\n'.join(f'  {line}' for line in examples.splitlines()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verb.set_defaults(run=run)
    return verb


def _add_model(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        '--checkpoint',
        metavar='F',
        default='demo',
        help="a .safetensors checkpoint, an .onnx file of sartm export, or 'demo' for the shipped "
        'one (default: %(default)s)',
    )
    verb.add_argument(
        '--device',
        default='auto',
        help="'cpu', 'cuda' or 'cuda:N' (default: %(default)s, the GPU where there is one)",
    )
    verb.add_argument(
        '--precision',
        choices=('auto', 'fp32', 'fp16', 'bf16'),
        default='auto',
        help='of the network (default: %(default)s, fp16 on a GPU and fp32 on a CPU)',
    )


def _add_predict(verbs: argparse._SubParsersAction) -> None:
    verb = _add(
        verbs,
        'predict',
        commands.predict,
        'Segment images. Writes STEM_labels.png (class ids) and STEM_overlay.png at the size of\n'
        'the RGB image, or of the thermal image where there is no RGB. In folders, files of the\n'
        'same stem belong together. One of --rgb and --thermal may be left out.',
        'sartm predict --rgb night/rgb --thermal night/thermal --out labels\n'
        'sartm predict --checkpoint my.safetensors --thermal hall.png --out labels',
    )
    verb.add_argument('--rgb', metavar='P', type=Path, help='an RGB image or a folder of them')
    verb.add_argument('--thermal', metavar='P', type=Path, help='a thermal image, or a folder')
    verb.add_argument('--out', metavar='DIR', type=Path, required=True, help='where to write')
    _add_homography(verb)
    _add_model(verb)


def _add_evaluate(verbs: argparse._SubParsersAction) -> None:
    verb = _add(
        verbs,
        'evaluate',
        commands.evaluate,
        'Measure a checkpoint on a data set. Gives IoU, boundary F1, calibration error as JSON,\n'
        'in percent, by day and by night too where the names of the frames tell.',
        'sartm evaluate --dataset synthetic --split test --report report\n'
        'sartm evaluate --checkpoint my.safetensors --dataset mfnet --root MFNet --split val\n'
        '               --modality thermal --json val.json\n'
        'sartm evaluate --dataset synthetic --split val --corruption thermal_shift --severity 3\n'
        'sartm evaluate --dataset synthetic --split val --flip --scales 0.75 1 1.25 --head mask',
    )
    _add_dataset(verb)
    verb.add_argument(
        '--split', metavar='NAME', required=True, help='train, val or test (MFNet: NAME.txt)'
    )
    verb.add_argument(
        '--modality',
        choices=('both', 'rgb', 'thermal'),
        default='both',
        help='what the network gets to see (default: %(default)s)',
    )
    verb.add_argument(
        '--corruption', choices=CORRUPTIONS, help='spoil the images, the same way at every run'
    )
    verb.add_argument(
        '--severity', type=int, choices=range(1, 6), help='of the corruption, from 1 to 5'
    )
    verb.add_argument(
        '--head',
        choices=('mean', 'mask', 'auxiliary'),
        help='the mean of both heads, or one alone (default: what the checkpoint says)',
    )
    verb.add_argument(
        '--flip', action='store_true', help='average with the prediction of the mirrored images'
    )
    verb.add_argument(
        '--scales',
        metavar='S',
        type=float,
        nargs='+',
        default=[1.0],
        help='average over the images at these factors of their size (default: 1)',
    )
    verb.add_argument('--report', metavar='DIR', type=Path, help='write an HTML page, index.html')
    _add_json(verb)
    _add_model(verb)


def _add_align(verbs: argparse._SubParsersAction) -> None:
    verb = _add(
        verbs,
        'align',
        commands.align,
        'Estimate the homography that lays thermal over RGB. It is made from places seen in both\n'
        'images: of a file (thermal x, thermal y, RGB x, RGB y a line, in pixels from the centre\n'
        'of the first one), from the inner corners of a checkerboard, in as many pairs of images\n'
        'as you like, or from clicks in a window. It is exact only at the distance of these\n'
        'places. The file it writes sets the parameter thermal.homography of the node.',
        'sartm align --rgb rgb.png --thermal thermal.png --points points.csv\n'
        '            --out homography.yaml --blend blend.png\n'
        'sartm align --rgb rgb --thermal thermal --checkerboard 9x6 --out homography.yaml',
    )
    verb.add_argument('--rgb', metavar='P', type=Path, required=True, help='an image, or a folder')
    verb.add_argument('--thermal', metavar='P', type=Path, required=True, help='likewise')
    source = verb.add_mutually_exclusive_group(required=True)
    source.add_argument('--points', metavar='FILE', type=Path, help='point pairs, at least 4')
    source.add_argument(
        '--checkerboard', metavar='COLSxROWS', help='inner corners of the board; it may be inverted'
    )
    source.add_argument('--click', action='store_true', help='click them in a window')
    verb.add_argument('--out', metavar='FILE', type=Path, required=True, help='YAML to write')
    verb.add_argument(
        '--blend', metavar='PNG', type=Path, help='write tiles of both images, to judge the fit by'
    )


def _add_train(verbs: argparse._SubParsersAction) -> None:
    verb = _add(
        verbs,
        'train',
        commands.train,
        'Train a network. Every setting of the configuration can be overridden as key=value;\n'
        'an unknown key is an error. SIGTERM and Ctrl-C save the state after the step under way;\n'
        'the same command with --resume goes on, as if it had not stopped.',
        'sartm train --config config/train/demo.yaml --out runs/demo\n'
        'sartm train --config config/train/demo.yaml --out runs/long steps=20000',
    )
    verb.add_argument('--config', metavar='FILE', type=Path, required=True, help='a YAML file')
    verb.add_argument('--out', metavar='DIR', type=Path, required=True, help="the run's folder")
    verb.add_argument(
        '--resume', action='store_true', help='go on with the run in DIR from its last saved state'
    )
    verb.add_argument('overrides', metavar='key=value', nargs='*', help='override a setting')


def _add_data(verbs: argparse._SubParsersAction) -> None:
    verb = _add(
        verbs,
        'data',
        commands.data,
        'Check a data set. Reads every frame, names every fault (file and what is wrong) and sums\n'
        'up what is there; warns of what is suspicious, such as an image in train and in val.\n'
        'The exit status is 1 where faults were found, 0 where there are none (warnings or not).',
        'sartm data check --dataset mfnet --root MFNet\n'
        'sartm data check --dataset fmb --root FMB --split train --json fmb.json',
    )
    verb.add_argument('action', choices=('check',), help='what to do with it')
    _add_dataset(verb)
    verb.add_argument(
        '--split', metavar='NAME', help='train, val or test (MFNet: NAME.txt); default: all'
    )
    verb.add_argument('--json', metavar='FILE', type=Path, help='write everything found here too')


def _add_download(verbs: argparse._SubParsersAction) -> None:
    verb = _add(
        verbs,
        'download',
        commands.download,
        "Fetch SAM2's official weights. The revision is pinned and the sha256 compared; what is\n"
        'there already is only compared.',
        'sartm download sam2 --size tiny\n'
        'sartm download sam2 --size large --version sam2 --out /data/weights',
    )
    verb.add_argument('what', choices=('sam2',), help='whose weights')
    verb.add_argument(
        '--size', choices=('tiny', 'small', 'base_plus', 'large'), required=True, help='of encoder'
    )
    verb.add_argument(
        '--version', choices=('sam2.1', 'sam2'), default='sam2.1', help='default: %(default)s'
    )
    verb.add_argument(
        '--out',
        metavar='DIR',
        type=Path,
        default=Path('weights'),
        help='the folder to put the file in (default: %(default)s)',
    )


def _add_info(verbs: argparse._SubParsersAction) -> None:
    verb = _add(
        verbs,
        'info',
        commands.info,
        'Describe a checkpoint as JSON. Configuration, labels, bytes, numbers of parameters,\n'
        'floating point operations a pair and the model card.',
        'sartm info demo\nsartm info runs/long/best.safetensors --height 720 --width 1280',
    )
    verb.add_argument('checkpoint', metavar='F', help="a .safetensors checkpoint, or 'demo'")
    for side, pixels in (('height', 480), ('width', 640)):
        verb.add_argument(
            f'--{side}',
            metavar='PX',
            type=int,
            default=pixels,
            help='of the pair whose operations are counted (default: %(default)s)',
        )


def _add_benchmark(verbs: argparse._SubParsersAction) -> None:
    verb = _add(
        verbs,
        'benchmark',
        commands.benchmark,
        'Time a checkpoint, or random weights of a size, stage by stage. --compare runs every way\n'
        'to run it on this device in turn and gives the ratios of their times and how far their\n'
        'labels agree. Times of a machine that does other work as well are good for ratios only.',
        'sartm benchmark --checkpoint demo\n'
        'sartm benchmark --size base_plus --height 1280 --width 1280 --iterations 3\n'
        'sartm benchmark --checkpoint demo --compare --json compare.json',
    )
    _add_model(verb)
    verb.add_argument('--size', choices=SIZES, help='random weights of this size instead')
    for side, pixels in (('height', 480), ('width', 640)):
        verb.add_argument(
            f'--{side}',
            metavar='PX',
            type=int,
            default=pixels,
            help='of the images (default: %(default)s)',
        )
    verb.add_argument(
        '--iterations', metavar='N', type=int, default=20, help='timed (default: %(default)s)'
    )
    verb.add_argument('--compare', action='store_true', help='every way side by side')
    _add_json(verb)


def _add_adapters(verbs: argparse._SubParsersAction) -> None:
    verb = _add(
        verbs,
        'adapters',
        commands.adapters,
        "Take SAM2's weights out of a checkpoint, or put them back. What is left when they are\n"
        'out is what training added: adapters, fusion and heads. They come back from the official\n'
        'file of SAM2 that the training started from, given by --sam2.',
        'sartm adapters runs/mfnet/best.safetensors --out adapters.safetensors\n'
        'sartm adapters adapters.safetensors --sam2 sam2.1_hiera_tiny.pt --out model.safetensors',
    )
    verb.add_argument('file', metavar='F', type=Path, help='a checkpoint; with --sam2: adapters')
    verb.add_argument('--sam2', metavar='PT', type=Path, help="SAM2's official .pt, to put in")
    verb.add_argument('--out', metavar='FILE', type=Path, required=True, help='where to write')


def _add_export(verbs: argparse._SubParsersAction) -> None:
    verb = _add(
        verbs,
        'export',
        commands.export,
        'Write a checkpoint for other runtimes. The file takes images as cameras give them and\n'
        'gives labels and confidence; all that is between is in it. It is an ONNX file, for ONNX\n'
        'Runtime and for --checkpoint and the node.',
        'sartm export --checkpoint demo --out demo.onnx\n'
        'sartm export --checkpoint my.safetensors --height 720 --width 1280 --out my.onnx\n'
        'sartm export --checkpoint my.safetensors --thermal-type uint16 --thermal-size 512 640\n'
        '             --thermal-range 28000 32000 --out my.onnx',
    )
    verb.add_argument(
        '--checkpoint', metavar='F', default='demo', help='.safetensors (default: %(default)s)'
    )
    verb.add_argument('--out', metavar='FILE', type=Path, required=True, help='.onnx file to write')
    for side, pixels in (('height', 480), ('width', 640)):
        verb.add_argument(
            f'--{side}',
            metavar='PX',
            type=int,
            help=f'of the images (default: {pixels})',
        )
    verb.add_argument('--modality', choices=('both', 'rgb', 'thermal'), default='both')
    verb.add_argument(
        '--thermal-size',
        metavar=('H', 'W'),
        type=int,
        nargs=2,
        help='of thermal beside RGB (default: that of RGB)',
    )
    verb.add_argument('--thermal-type', choices=('uint8', 'uint16'), default='uint8')
    verb.add_argument(
        '--thermal-range',
        metavar=('LOW', 'HIGH'),
        type=float,
        nargs=2,
        help="counts shown as 0 and as 1 (default: each image's percentiles)",
    )
    verb.add_argument(
        '--precision', choices=('fp32', 'fp16'), default='fp32', help='of the network'
    )


def _add_make_bag(verbs: argparse._SubParsersAction) -> None:
    verb = _add(
        verbs,
        'make-bag',
        commands.make_bag,
        'Make a rosbag2 bag of images. They are taken in the order of their names, one a period.\n'
        'The faults of real cameras can be added; labels have none. No ROS is needed.',
        'sartm make-bag --rgb night/rgb --thermal night/thermal --out night_bag\n'
        'sartm make-bag --rgb rgb --thermal thermal --labels labels --out bag --rate 30\n'
        '               --thermal-rate 9 --storage sqlite3\n'
        'sartm make-bag --rgb rgb --thermal thermal --out bad_bag --jitter 0.03 --drop 0.05\n'
        '               --thermal-offset 0.02 --freeze 2:1.5 --freeze 8:0.7',
    )
    verb.add_argument('--rgb', metavar='DIR', type=Path, required=True, help='RGB images')
    verb.add_argument('--thermal', metavar='DIR', type=Path, required=True, help='thermal images')
    verb.add_argument('--out', metavar='BAG', type=Path, required=True, help='a new folder')
    verb.add_argument(
        '--labels', metavar='DIR', type=Path, help='true ids, for the topic /ground_truth/labels'
    )
    verb.add_argument(
        '--rate', metavar='HZ', type=float, default=10.0, help='RGB rate (default: %(default)s)'
    )
    verb.add_argument(
        '--thermal-rate', metavar='HZ', type=float, help='thermal rate (default: that of RGB)'
    )
    verb.add_argument('--storage', choices=('mcap', 'sqlite3'), default='mcap')
    verb.add_argument(
        '--jitter',
        metavar='S',
        type=float,
        default=0.0,
        help='images are received up to S seconds late; their stamps stay',
    )
    verb.add_argument(
        '--drop', metavar='SHARE', type=float, default=0.0, help='share of the images that get lost'
    )
    verb.add_argument(
        '--thermal-offset',
        metavar='S',
        type=float,
        default=0.0,
        help='thermal comes, and is stamped, S seconds later',
    )
    verb.add_argument(
        '--freeze',
        metavar='START:DURATION',
        action='append',
        default=[],
        help='thermal repeats its last image, from START on, for DURATION seconds; may be repeated',
    )
    verb.add_argument(
        '--seed', metavar='N', type=int, default=0, help='of chance (default: %(default)s)'
    )


def _add_replay(verbs: argparse._SubParsersAction) -> None:
    verb = _add(
        verbs,
        'replay',
        commands.replay,
        'Run a checkpoint over every pair of a bag, offline. Pairs are made and stalled cameras\n'
        "treated as by the node's default settings. The truth comes from the folder --labels, or\n"
        'else from a topic. In it stamps.csv, whose first line is stamp_ns,file, says which RGB\n'
        'image each file is of; without that list they go by order. No ROS is needed.',
        'sartm replay night_bag\n'
        'sartm replay night_bag --checkpoint my.safetensors --json night.json --report night\n'
        'sartm replay night_bag --labels labels --rgb-topic /camera/color/image_raw/compressed',
    )
    verb.add_argument('bag', metavar='BAG', type=Path, help='rosbag2 folder, .mcap or .db3 file')
    verb.add_argument('--labels', metavar='DIR', type=Path, help='true ids, by stamp or by order')
    verb.add_argument('--report', metavar='DIR', type=Path, help='write an HTML page and a table')
    verb.add_argument('--rgb-topic', metavar='TOPIC', help="default: the node's default topic")
    verb.add_argument('--thermal-topic', metavar='TOPIC', help='likewise')
    verb.add_argument(
        '--labels-topic', metavar='TOPIC', help='true ids (default: /ground_truth/labels, if any)'
    )
    _add_homography(verb)
    _add_json(verb)
    _add_model(verb)


def _add_dataset(verb: argparse.ArgumentParser) -> None:
    verb.add_argument('--dataset', choices=('mfnet', 'pst900', 'fmb', 'synthetic'), required=True)
    verb.add_argument('--root', metavar='DIR', type=Path, help="the data set's folder")


def _add_homography(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        '--homography',
        metavar='FILE',
        type=Path,
        help='lay thermal over RGB by this file of sartm align (default: resize it)',
    )


def _add_json(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        '--json', metavar='FILE', type=Path, help='write the JSON here instead of to the output'
    )


if __name__ == '__main__':
    sys.exit(main())
