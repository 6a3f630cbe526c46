"""The averaged weights, the choice of the best model, and what is optimised at all."""

from __future__ import annotations

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sartm_model.config import ModelConfig, OptimConfig, TrainConfig
from sartm_model.data.eval_frames import EvalFrame
from sartm_model.labels import MFNET
from sartm_model.models import checkpoint as checkpoints
from sartm_model.models.sartm import Sartm
from sartm_model.training.callbacks import AveragedWeights, BestCheckpoint, LogPredictions
from sartm_model.training.module import SegmentationTraining


def test_the_decay_of_the_average_grows_up_to_the_configured_one():
    module = SegmentationTraining(Sartm(ModelConfig(), len(MFNET)), TrainConfig(), MFNET)
    trainer = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device('cpu')))
    callback = AveragedWeights(0.28)
    callback.setup(trainer, module, 'fit')
    weight = module.model.auxiliary_head.classifier.bias
    expected = None
    # The first step's weights are taken as they are; then (1 + n) / (10 + n), at most 0.28.
    for step, decay in enumerate((0.0, 2 / 11, 3 / 12, 0.28, 0.28), start=1):
        torch.nn.init.normal_(weight)
        current = weight.detach().double()
        expected = current if expected is None else decay * expected + (1 - decay) * current
        trainer.global_step = step
        callback.on_train_batch_end(trainer, module, None, None, step - 1)
        average = callback.model.auxiliary_head.classifier.bias
        torch.testing.assert_close(average.double(), expected, rtol=1e-5, atol=1e-6)
    assert not torch.equal(average, weight)


def test_frozen_weights_are_neither_copied_nor_averaged():
    module = SegmentationTraining(Sartm(ModelConfig(), len(MFNET)), TrainConfig(), MFNET)
    module.model.encoder.requires_grad_(False)
    trainer = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device('cpu')))
    callback = AveragedWeights(0.5)
    callback.setup(trainer, module, 'fit')
    callback.on_train_start(trainer, module)
    expected = {name: weight.clone() for name, weight in module.model.named_parameters()}
    for step in (1, 2):
        for weight in module.model.auxiliary_head.parameters():
            weight.data += 1
        trainer.global_step = step
        callback.on_train_batch_end(trainer, module, None, None, step - 1)
    current = dict(module.model.named_parameters())
    for name, average in callback.model.named_parameters():
        is_shared = average.data_ptr() == current[name].data_ptr()
        assert is_shared == (not current[name].requires_grad)
        # 1 after the first step, 2 / 11 of it and 9 / 11 of 2 after the second.
        moved = 20 / 11 if name.startswith('auxiliary_head.') else 0
        torch.testing.assert_close(average, expected[name] + moved, rtol=1e-5, atol=1e-5)


def test_the_module_that_ddp_wraps_has_the_weights_once():
    """DDP sends the buffers of its module to every process at each step."""
    model = Sartm(ModelConfig(), len(MFNET))
    module = SegmentationTraining(model, TrainConfig(), MFNET)
    assert len(list(module.parameters())) == len(list(model.parameters()))
    others = {name for name, _ in module.named_buffers() if not name.startswith('model.')}
    assert others == {'prototypes.value', 'prototypes.initialized'}


def test_the_best_model_is_kept_also_by_a_run_that_is_resumed(tmp_path, monkeypatch):
    model = Sartm(ModelConfig(), len(MFNET))
    trainer = SimpleNamespace(is_global_zero=True, callback_metrics={})

    def save_model(path, *_, val_miou):
        checkpoints.save(path, model, MFNET, {'steps': trainer.global_step, 'val_miou': val_miou})

    monkeypatch.setattr('sartm_model.training.callbacks.save_model', save_model)
    callback = BestCheckpoint(tmp_path, SimpleNamespace(model=None))
    found = []
    for trainer.global_step, miou in enumerate((20.0, 10.0, 30.0, 30.0, 25.0, 31.0)):
        trainer.callback_metrics['val_miou'] = torch.tensor(miou)
        callback.on_validation_end(trainer, None)
        card = checkpoints.load(tmp_path / 'best.safetensors').card
        found.append((card['steps'], card['val_miou']))
        state, callback = callback.state_dict(), BestCheckpoint(tmp_path, callback.averaged)
        callback.load_state_dict(state)
    assert found == [(0, 20.0), (0, 20.0), (2, 30.0), (2, 30.0), (2, 30.0), (5, 31.0)]
    assert [path.name for path in tmp_path.iterdir()] == ['best.safetensors']


def test_frozen_parameters_have_neither_gradients_nor_optimiser_state():
    config = ModelConfig(size='tiny')
    model = Sartm(config, len(MFNET))
    module = SegmentationTraining(model, TrainConfig(model=config), MFNET)
    [optimizer], _ = module.configure_optimizers()
    output = model({'rgb': torch.randn(2, 3, 32, 64), 'thermal': torch.randn(2, 1, 32, 64)})
    sum(logits.mean() for logits in output.logits.values()).backward()
    optimizer.step()
    frozen = {p for p in model.parameters() if not p.requires_grad}
    assert sum(p.numel() for p in frozen) > 25e6
    assert all(p.grad is None and p not in optimizer.state for p in frozen)
    assert {p for group in optimizer.param_groups for p in group['params']}.isdisjoint(frozen)


@pytest.mark.parametrize(('step', 'factor'), [(0, 0.1), (5, 0.55 * 0.95**0.9), (50, 0.5**0.9)])
def test_the_learning_rate_warms_up_and_decays(step, factor):
    config = TrainConfig(steps=100, optim=OptimConfig(warmup_fraction=0.1))
    module = SegmentationTraining(Sartm(ModelConfig(), len(MFNET)), config, MFNET)
    [optimizer], [schedule] = module.configure_optimizers()
    for _ in range(step):
        optimizer.step()
        schedule['scheduler'].step()
    assert optimizer.param_groups[0]['lr'] == pytest.approx(1e-4 * factor)


def test_a_logged_panel_is_small_and_has_the_colours_of_its_labels(tmp_path):
    """Frames of 3000x2000, of which two images and two maps of ids are shown."""
    from pytorch_lightning.loggers import TensorBoardLogger

    logger = TensorBoardLogger(tmp_path, name='', version='')
    trainer = SimpleNamespace(is_global_zero=True, loggers=[logger], global_step=7)
    module = SimpleNamespace(data=SimpleNamespace(val_spaces=[MFNET]))
    ids = torch.from_numpy(np.indices((2000, 3000)).sum(axis=0).astype(np.uint8) // 200)
    images = {
        'rgb': torch.full((2000, 3000, 3), 90, dtype=torch.uint8),
        'thermal': torch.zeros(2000, 3000, dtype=torch.uint8),
    }
    callback = LogPredictions()
    callback.on_validation_batch_end(trainer, module, ids, EvalFrame('1D', images, ids), 0)
    logger.experiment.flush()
    [event] = EventAccumulator(str(tmp_path)).Reload().Images('val/1D')
    panel = cv2.imdecode(np.frombuffer(event.encoded_image_string, np.uint8), cv2.IMREAD_COLOR)
    assert panel.shape == (320, 4 * 480, 3)
    assert (panel[:, :480] == 90).all()
    colors = np.unique(panel[:, 2 * 480 :, ::-1].reshape(-1, 3), axis=0)
    assert {*map(tuple, colors)} == {*map(tuple, MFNET.palette()[[0, 1]])}
