# Needs Python 3.11 or newer and make; everything else goes into .venv, at the versions of constraints.txt.
#   make demo     train a small model, evaluate it and name the report to open
#   make test     what a change must pass: lint, types, tests
#   make bench    speed against plain loops, and of evaluations
#   make soak     kills and damaged files, many times over; checks of evaluations against what is known to be wrong

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/pip install --disable-pip-version-check --quiet -c constraints.txt
# A build of torch that is already wanted elsewhere (CUDA, CPU only) can be named: make demo TORCH=...
TORCH ?= torch==2.13.0

.PHONY: demo test lint bench soak readme clean
.DELETE_ON_ERROR:

.venv/core: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("pofx needs Python 3.11 or newer" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(PIP) $(TORCH) hatchling editables
	$(PIP) --no-build-isolation -e .
	@touch $@

.venv/dev: .venv/core
	$(PIP) --no-build-isolation -e '.[dev]'
	@touch $@

# Every demo takes the next free run folder.
demo: .venv/core
	@n=1; while [ -e runs/demo-$$(printf %03d $$n) ]; do n=$$((n + 1)); done; run=runs/demo-$$(printf %03d $$n); \
	$(BIN)/pofx train vae --data digits --model.latent-dim 2 --minutes 1 --run $$run && \
	$(BIN)/pofx evaluate $$run && \
	echo && echo "Open $$run/report.html"

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

bench: .venv/dev
	$(BIN)/python benchmarks/speed.py
	$(BIN)/python benchmarks/gan_speed.py
	$(BIN)/python benchmarks/evaluation.py

soak: .venv/dev
	$(BIN)/python benchmarks/corruption.py
	$(BIN)/python benchmarks/resume.py
	$(BIN)/python benchmarks/controls.py

# The table of models in README.md, from the models themselves.
readme: .venv/core
	$(BIN)/python benchmarks/readme.py

clean:
	rm -rf .venv build dist
