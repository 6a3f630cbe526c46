"""The `sartm` command: reads the command line and runs the verb that it names.

Each verb is a module of this package with two functions: `add_parser(verbs)` declares its options,
`run(args)` does the work and imports what that needs. Other packages add verbs through the
entry-point group `sartm.verbs`, whose entries are functions like `add_parser`.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Sequence
from importlib.metadata import entry_points
from typing import Any, NoReturn

from sartm_model.cli import (
    adapters,
    align,
    benchmark,
    calibrate,
    data,
    download,
    evaluate,
    export,
    info,
    predict,
    pseudo_label,
    train,
)
from sartm_model.cli.options import Verbs
from sartm_model.errors import SartmError
from sartm_model.utils.text import first_line

VERBS = (
    predict,
    evaluate,
    align,
    train,
    calibrate,
    pseudo_label,
    data,
    download,
    info,
    benchmark,
    adapters,
    export,
)
PLUGIN_GROUP = 'sartm.verbs'

USER_ERROR = 2
INTERRUPTED = 130  # the status that a shell reports of a process ended by Ctrl-C
BROKEN_PIPE = 141  # the same for one ended by SIGPIPE


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit status.

    Args:
        argv: the words after `sartm`; those of this process if None.

    Returns:
        0 on success, 2 on bad input, which one line on stderr describes (`sartm data check` prints
        a line for each fault), 130 after Ctrl-C, and 141 where the reader of stdout has gone.

    Raises:
        SystemExit: with status 143, after SIGTERM.
    """
    args = build_parser().parse_args(argv)
    is_main = threading.current_thread() is threading.main_thread()
    # A handler of a program that calls this function is kept.
    if is_main and signal.getsignal(signal.SIGTERM) in (signal.SIG_DFL, signal.SIG_IGN):
        signal.signal(signal.SIGTERM, _end)
    try:
        status = args.run(args)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The reader has seen enough (`sartm info demo | head`). Python would complain at exit that
        # it cannot write the rest.
        sys.stdout = open(os.devnull, 'w')  # noqa: SIM115
        return BROKEN_PIPE
    except SartmError as error:
        message = str(error)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith('sartm_'):  # a fault of this package
            raise
        package = error.name.partition('.')[0]
        message = (
            f'the package {package} is not installed; docs/workspace.md says which of the files in '
            'requirements/ has it'
        )
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


def _end(number: int, frame: Any) -> NoReturn:
    """End the process so that it first removes temporary files and ends its child processes."""
    raise SystemExit(128 + number)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line, with the verbs of other packages."""
    parser = _Parser(
        prog='sartm',
        description='RGB-thermal semantic segmentation: predict, evaluate, train, data, bags.',
        epilog='Exit status: 0 on success, 2 on bad input, 130 after Ctrl-C, 143 after SIGTERM.',
    )
    verbs = parser.add_subparsers(dest='verb', required=True, metavar='VERB')
    for module in VERBS:
        module.add_parser(verbs)
    _add_plugins(verbs)
    return parser


class _Parser(argparse.ArgumentParser):
    """Prints a usage error as one line, like every other error of the command."""

    def error(self, message: str) -> NoReturn:
        self.exit(USER_ERROR, f'{self.prog}: error: {message} (see {self.prog} --help)\n')


def _add_plugins(verbs: Verbs) -> None:
    """Add the verbs of other packages; one that fails is left out with a warning."""
    for entry in sorted(entry_points(group=PLUGIN_GROUP)):
        try:
            entry.load()(verbs)
        except Exception as error:
            reason = f'{type(error).__name__}: {first_line(error)}'
            print(f'sartm: warning: the verb {entry.name} is missing: {reason}', file=sys.stderr)
