# Each target sets up .venv itself, once, and renews it when requirements.txt changes.
SHELL  := /bin/sh
PYTHON ?= python3
DATA   ?= demo
OUT    ?= $(if $(filter demo,$(DATA)),outputs/demo,outputs/run)
# Further notebook parameters, for instance ARGS="-p epochs 30 -p model medium".
ARGS   ?=

BIN    := .venv/bin
READY  := .venv/.ready

.PHONY: help submission test lint lab bench clean

help:
	@echo "make submission [DATA=path OUT=outputs/name ARGS='-p epochs 30']   train and write a submission"
	@echo "make bench [ARGS='--quick' or ARGS='--data path time_to_accuracy']      speed against peers and limits"
	@echo "make test | lint | lab | clean"

$(READY): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name it with make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $(READY)

submission: $(READY)
	@mkdir -p "$(OUT)"
	$(BIN)/papermill notebooks/03_training.ipynb "$(OUT)/03_training.ipynb" --cwd . --no-progress-bar --log-output \
		-r data "$(DATA)" -r out "$(OUT)" $(ARGS)

test: $(READY)
	$(BIN)/python -m pytest

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

bench: $(READY)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r benchmarks/requirements.txt
	$(BIN)/python -m benchmarks $(ARGS)

lab: $(READY)
	$(BIN)/jupyter lab notebooks

clean:
	rm -rf .venv
