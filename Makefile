# Each target sets up what it needs itself, once, and renews it when its lock file or pyproject.toml changes.
SHELL  := /bin/sh
PYTHON ?= python3
DATA   ?= demo
OUT    ?= $(if $(filter demo,$(DATA)),outputs/demo,outputs/run)
# Further notebook parameters, for instance ARGS="-p preset standard -p seed 1"; for the tests, options of pytest.
ARGS   ?=
# The torch that `make lock` pins in requirements.lock; with an empty TORCH the newest.
TORCH  ?= torch==2.14.1 torchvision==0.29.1

BIN    := .venv/bin
READY  := .venv/.ready
KAGGLE := .venv-kaggle/.ready
UV     := $(BIN)/uv
# A process for each core, one thread in each: several threads would wait for each other.
PYTEST  = OMP_NUM_THREADS=1 $(<D)/bin/python -m pytest -n auto --maxprocesses 4 --dist worksteal $(ARGS)
# Compiling all modules takes half of the time, and most are never used: those that are, are compiled below.
PIP    := -m pip --quiet --disable-pip-version-check install --no-compile
USED   := torch, torchvision, pandas, sklearn.metrics, matplotlib.pyplot, seaborn, papermill
# Pins that still fit stay; `make lock ARGS=--upgrade` takes the newest.
LOCK    = $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
	--no-emit-package fer-utils --custom-compile-command "make lock" $(ARGS)

# Of an error in a notebook only its message, not the way through papermill to it.
PAPERMILL = $(BIN)/python -c 'import sys; sys.tracebacklimit = 0; import papermill.cli as c; c.papermill(prog_name="papermill")'

# What Kaggle's image lacks, and what comes with it alone.
NOT_ON_KAGGLE = $(addprefix --no-emit-package ,captum cleanlab termcolor playwright greenlet uv)

.PHONY: help submission report runs submit submitted predict kaggle reproduce sweep gpu test test-long test-kaggle lint lab bench lock clean

help:
	@echo "make submission [DATA=path OUT=outputs/name ARGS='-p epochs 30']     train and write a submission"
	@echo "make report RUN=outputs/name                                         write one HTML page about a run or an ensemble: results, curves, errors"
	@echo "make runs [RUN=outputs]                                              all runs as a table, and a page with their learning curves"
	@echo "make submit RUN=outputs/name COMPETITION=name [MESSAGE=...]          send its submission to Kaggle, wait for the score and keep it"
	@echo "make submitted RUN=outputs/name PUBLIC=0.7132 [PRIVATE=... N=...]    keep a leaderboard score beside its submission (N: images behind it)"
	@echo "make predict RUN=outputs/name FILES=folder [ARGS=--whole]            what a run says of your own images (--whole: cropped already)"
	@echo "make kaggle ARGS='--user NAME --competition SLUG -p epochs 30'       write notebooks to upload to Kaggle"
	@echo "make reproduce [RUN=fer2013-cpu DATA=path]                           train a committed result again and compare"
	@echo "make reproduce ARGS=--score [RUN=... DATA=path]                      score the committed weights, without training"
	@echo "make sweep FILE=sweep.yaml [DATA=path ARGS='--at-once 2']            compare short runs that differ in one setting (how to write the file: $(BIN)/python -m tools.sweep --help)"
	@echo "make gpu DATA=path MINUTES=15 [ARGS=--dry-run]                       train the ensemble that fits into the minutes of a GPU"
	@echo "make bench [ARGS='--quick' or ARGS='--data path time_to_accuracy']   measure the speed"
	@echo "make test [ARGS='-k NAME']                                           run all tests but the two that need Kaggle's packages"
	@echo "make test-kaggle [ARGS='-k NAME']                                    run the tests of what runs on Kaggle, with its package versions"
	@echo "make test-long                                                       run the tests that take hours (kill, full disk, little memory)"
	@echo "make lint                                                            check the code's style"
	@echo "make lab                                                             start JupyterLab"
	@echo "make lock [ARGS=--upgrade]                                           renew the lock files after a change of requirements*.txt"
	@echo "make clean                                                           remove the virtual environments"

$(READY): requirements.lock
$(KAGGLE): requirements-kaggle.lock
# Only files whose hash a lock names are installed; no package is built, for that would fetch others unchecked.
# uv takes a third of pip's time, but does not read pip.conf: where a mirror stands in it, pip does the work.
# The lock is kept in the venv: tests/test_requirements.py sees by it what was installed.
$(READY) $(KAGGLE): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name it with make PYTHON=python3.12")'
	$(PYTHON) -m venv $(@D)
	@sed -n '/^uv==/,/[^\\]$$/p' requirements.lock > $(@D)/uv.txt
	@$(@D)/bin/python $(PIP) --require-hashes --only-binary :all: -r $(@D)/uv.txt
	$(@D)/bin/uv pip install --quiet --python $(@D)/bin/python --cache-dir $(@D)/cache --no-build --require-hashes \
		-r $(filter %.lock,$^) || { echo "uv could not; pip does it, which takes longer" && \
		$(@D)/bin/python $(PIP) --only-binary :all: --require-hashes -r $(filter %.lock,$^); }
	@rm -rf $(@D)/cache
	$(@D)/bin/python $(PIP) --no-deps --no-build-isolation -e .
	@PYTHONDONTWRITEBYTECODE= $(@D)/bin/python -c "import $(USED)"
# A kernel's own lines (it talks over TCP, its socket closed when Ctrl-C stopped it) would hide what a notebook says.
	@mkdir -p $(@D)/etc/ipython && echo 'c.IPKernelApp.log_level = 50' > $(@D)/etc/ipython/ipython_kernel_config.py
	@cp $(filter %.lock,$^) $@

submission: $(READY)
	@mkdir -p "$(OUT)"
	$(PAPERMILL) notebooks/03_training.ipynb "$(OUT)/03_training.ipynb" --cwd . --no-progress-bar \
		--log-level ERROR --stdout-file - --stderr-file - \
		-r data "$(DATA)" -r out "$(OUT)" $(ARGS)
	@echo && $(BIN)/python -c "import sys, fer_utils; fer_utils.print_results(fer_utils.load_run(sys.argv[1]))" "$(OUT)"
	@echo "the notebook: $(OUT)/03_training.ipynb; next: make report RUN=$(OUT)"

report: $(READY)
	@test -n "$(RUN)" || { echo "RUN is missing, for instance: make report RUN=outputs/demo"; exit 2; }
	$(BIN)/python -m tools.report "$(RUN)" $(ARGS)

runs: $(READY)
	$(BIN)/python -m tools.runs "$(or $(RUN),outputs)" $(ARGS)

submit: $(READY)
	@test -n "$(RUN)" || { echo "RUN is missing, for instance: make submit RUN=outputs/demo COMPETITION=name"; exit 2; }
	$(BIN)/python -m tools.send_to_leaderboard "$(RUN)" --competition "$(COMPETITION)" --message "$(MESSAGE)" $(ARGS)

submitted: $(READY)
	@test -n "$(RUN)" && test -n "$(PUBLIC)" || { echo "RUN or PUBLIC is missing, for instance: make submitted RUN=outputs/demo PUBLIC=0.7132"; exit 2; }
	$(BIN)/python -m tools.runs "$(RUN)" --public "$(PUBLIC)" $(if $(PRIVATE),--private "$(PRIVATE)") $(if $(N),--public-n "$(N)")

predict: $(READY)
	@test -n "$(RUN)" && test -n "$(FILES)" || { echo "RUN or FILES is missing, for instance: make predict RUN=outputs/demo FILES=folder/of/faces"; exit 2; }
	$(BIN)/python -m tools.predict "$(RUN)" $(FILES) $(ARGS)

kaggle: $(READY)
	$(BIN)/python -m tools.kaggle_kernel $(ARGS)

reproduce: $(READY)
	$(BIN)/python -m tools.reproduce "$(or $(RUN),fer2013-cpu)" --data "$(or $(filter-out demo,$(DATA)),auto)" $(ARGS)

sweep: $(READY)
	@test -n "$(FILE)" || { echo "FILE is missing, for instance: make sweep FILE=outputs/reference/sweeps/cpu.yaml"; exit 2; }
	$(BIN)/python -m tools.sweep "$(FILE)" --data "$(DATA)" $(ARGS)

gpu: $(READY)
	$(BIN)/python -m tools.gpu --data "$(or $(filter-out demo,$(DATA)),auto)" --minutes "$(or $(MINUTES),15)" $(ARGS)

test: $(READY)
	$(PYTEST) -m "not kaggle"

test-long: $(READY)
	$(BIN)/python -m tests.long $(ARGS)

# Tests marked `once` would only repeat `make test`.
test-kaggle: $(KAGGLE)
	$(PYTEST) -m "not once"

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

bench: $(READY)
	$(BIN)/python -m benchmarks $(ARGS)

lab: $(READY)
	$(BIN)/jupyter lab --ServerApp.root_dir="$(CURDIR)" --LabApp.default_url=/lab/tree/notebooks

lock: $(READY)
	printf '%s\n' $(TORCH) | $(LOCK) -c - requirements.txt benchmarks/requirements.txt -o requirements.lock
	$(LOCK) -c requirements-kaggle.txt requirements.txt -o requirements-kaggle.lock $(NOT_ON_KAGGLE)

clean:
	rm -rf .venv .venv-kaggle
