"""Opens files of `sartm export` with ONNX Runtime."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from sartm_model.errors import SartmError
from sartm_model.inference.device_name import parse_device
from sartm_model.inference.export_config import FORMAT
from sartm_model.utils.text import first_line

CUDA_PROVIDER = 'CUDAExecutionProvider'


def choose_providers(device: str) -> tuple[str, list[Any]]:
    """Return the device's name and ONNX Runtime's execution providers.

    Args:
        device: 'auto', 'cpu', 'cuda' or 'cuda:N'.

    Raises:
        SartmError: there is no device of this name, or ONNX Runtime is missing or does not have it.
    """
    kind, number = parse_device(device)
    has_cuda = CUDA_PROVIDER in _import_runtime().get_available_providers()
    if kind == 'cpu' or (kind == 'auto' and not has_cuda):
        return 'cpu', ['CPUExecutionProvider']
    if not has_cuda:
        raise SartmError(
            f'device {device!r} is not there: this ONNX Runtime has no CUDA; use cpu, or install '
            f'onnxruntime-gpu'
        )
    cuda = (CUDA_PROVIDER, {'device_id': number or 0})
    return 'cuda' if kind == 'auto' else device, [cuda, 'CPUExecutionProvider']


def _import_runtime() -> Any:
    try:
        import onnxruntime
    except ModuleNotFoundError:
        raise SartmError('an .onnx checkpoint needs onnxruntime; pip install onnxruntime') from None
    return onnxruntime


def open_session(path: Path, providers: list[Any], threads: int) -> Any:
    """Open a file with ONNX Runtime.

    Args:
        path: an `.onnx` file.
        providers: as `choose_providers` returns them.
        threads: of the CPU; 0 for one a core.

    Raises:
        SartmError: the file is missing or cannot be read.
    """
    if not path.is_file():
        raise SartmError(f'no checkpoint {path}; expected an .onnx file written by sartm export')
    runtime = _import_runtime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads or len(os.sched_getaffinity(0))
    # Threads that wait would otherwise keep a core busy that the cameras' driver needs.
    options.add_session_config_entry('session.intra_op.allow_spinning', '0')
    options.log_severity_level = 3  # its warnings are about itself
    try:
        return runtime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # it has many, without a common class
        raise SartmError(
            f'checkpoint {path} is damaged or foreign ({first_line(error)}); expected an .onnx '
            f'file written by sartm export'
        ) from None


def read_metadata(session: Any, path: Path) -> dict[str, str]:
    """Return the metadata of a file. Raises SartmError unless `sartm export` has written it."""
    texts: dict[str, str] = session.get_modelmeta().custom_metadata_map
    if texts.get('format') != FORMAT:
        raise SartmError(
            f'checkpoint {path} has format {texts.get("format")!r}; expected {FORMAT!r}, as '
            f'sartm export writes it'
        )
    return texts
