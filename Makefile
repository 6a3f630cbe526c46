# make setup | demo | test | test-slow | lint | bench | bench-gpu | train-demo | train-demo-depth. Everything is installed in .venv of this folder.
#
# Where a ROS 2 environment is sourced, its rclpy is used; elsewhere ROS comes as wheels.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
SEQUENCE ?=
LOOP ?= 1
MODALITY ?=
CHECKPOINT ?=
export SAM2_BUILD_CUDA := 0

ifneq ($(AMENT_PREFIX_PATH),)
SOURCED_ROS := $(shell $(PYTHON) -c 'import rclpy; print("yes")' 2>/dev/null)
endif

ifeq ($(SOURCED_ROS),yes)
VENV_FLAGS := --system-site-packages
CONSTRAINTS := -c requirements/ros_workspace.txt
ROS_WHEELS :=
else
VENV_FLAGS :=
CONSTRAINTS :=
ROS_WHEELS := -r requirements/ros.txt
endif

.PHONY: setup demo train-demo train-demo-depth test test-slow lint format bench bench-gpu clean

setup: $(READY)

$(READY): setup.py $(wildcard requirements/*.txt)
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 10) <= v <= (3, 12) \
	  else f"Python {v[0]}.{v[1]} found; 3.10 to 3.12 is needed: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV_FLAGS) $(VENV)
	$(PIP) install --upgrade pip 'setuptools>=61,<80' wheel
	$(PIP) install $(CONSTRAINTS) torch==2.13.0
	$(PIP) install $(CONSTRAINTS) -r requirements/model.txt $(ROS_WHEELS) -r requirements/export.txt \
	  -r requirements/test.txt
	$(PIP) install --no-deps -r requirements/training.txt
	$(PIP) install --no-build-isolation --no-deps sam2==1.1.0
	$(PIP) install --no-build-isolation --no-deps --editable .
	@touch $@

demo: setup
	$(BIN)/python -m sartm_ros.demo.run --out demo_output --loop '$(LOOP)' \
	  $(if $(SEQUENCE),--sequence '$(SEQUENCE)') $(if $(MODALITY),--modality '$(MODALITY)') \
	  $(if $(CHECKPOINT),--checkpoint '$(CHECKPOINT)')

# The shipped checkpoint: a teacher, then three rounds of labelling frames without labels and training
# on them. What was stopped goes on where it was. MFNet is expected in data/MFNet, and frames without
# labels as data/unlabelled/data.yaml declares them (`sartm data init` writes it).
train-demo: RUN = runs/demo
train-demo: setup runs/demo.done
	$(CALIBRATE)
	$(BIN)/python -m tools.ship_demo runs/demo/calibrated.safetensors --mfnet data/MFNet

# The shipped checkpoint for RGB and depth, from `demo` and generated scenes.
train-demo-depth: RUN = runs/demo_depth
train-demo-depth: setup runs/demo_depth.done
	$(CALIBRATE)
	$(BIN)/python -m tools.ship_demo runs/demo_depth/calibrated.safetensors --name demo_depth

runs/demo_depth.done: | setup
	$(TRAIN) config/train/demo_depth.yaml
	@touch $@

runs/demo_0.done: | setup
	$(TRAIN) config/train/demo_teacher.yaml
	@touch $@

runs/demo_1.done: runs/demo_labels_1
	$(ROUND) start_from=runs/demo_0/last.safetensors
	@touch $@

runs/demo_2.done: runs/demo_labels_2
	$(ROUND) start_from=runs/demo_1/last.safetensors
	@touch $@

runs/demo.done: runs/demo_labels_3
	$(ROUND)
	@touch $@

runs/demo_labels_1: runs/demo_0.done
runs/demo_labels_2: runs/demo_1.done
runs/demo_labels_3: runs/demo_2.done
runs/demo_labels_%:
	$(BIN)/sartm pseudo-label --checkpoint $(<:.done=)/last.safetensors --dataset folder \
	  --root data/unlabelled/data.yaml --split all --out $@

TRAIN = $(BIN)/sartm train --out $(@:.done=) $(if $(wildcard $(@:.done=)/last.ckpt),--resume) --config
CALIBRATE = $(BIN)/sartm calibrate --checkpoint $(RUN)/last.safetensors --dataset synthetic \
	  --split val --out $(RUN)/calibrated.safetensors
ROUND = $(TRAIN) config/train/demo.yaml data.train.1.root=$</data.yaml

# Two workers, each with one thread of torch and a ROS domain of its own. The tests of a file stay
# together, because they share its fixtures.
test: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile -m 'not slow' --durations 10

# One after another: these tests start processes that use every core.
test-slow: setup
	$(BIN)/python -m pytest -m slow --durations 10

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup
	for size in nano tiny small base_plus large; do \
	  $(BIN)/sartm benchmark --size $$size --iterations 5; done
	$(BIN)/sartm benchmark --checkpoint demo --compare

# On a machine with a GPU; compiling takes most of the time.
bench-gpu: setup
	$(BIN)/python -m pytest test/inference/test_predictor.py test/inference/test_cuda_graph.py \
	  test/inference/test_compiled.py test/inference/test_stage_clock.py test/models/test_parallel.py
	$(BIN)/python -m benchmarks.gpu_report --out gpu_report
	$(BIN)/python -m benchmarks.ros_path --checkpoint demo --pairs 600 --json gpu_report/node.json

clean:
	rm -rf $(VENV) build install log demo_output *.egg-info
