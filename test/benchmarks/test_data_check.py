"""The measurement of `sartm data check` on a few frames."""

from __future__ import annotations

import json

from benchmarks import data_check
from sartm_model.data.declared import open_declared


def test_the_frames_are_read_and_have_no_faults(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(data_check, 'SCENES', 2)
    assert data_check.main(['--frames', '3']) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result['frames'], result['faults']) == (3, 0)
    frames = list(open_declared(data_check.write_frames(tmp_path, 3), 'train'))
    assert {frame.rgb.shape for frame in frames} == {(480, 640, 3)}
    assert {str(frame.thermal.dtype) for frame in frames} == {'uint16'}
    assert len({frame.thermal.tobytes() for frame in frames}) == 3
    assert max(frame.labels.max() for frame in frames) > 0
