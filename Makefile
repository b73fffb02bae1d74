# Targets for contributors; CONTRIBUTING.md explains them. `make PYTHON=python3.11 setup` takes another interpreter.
PYTHON ?= python
PACKAGES = core recipe inference experiments demo examples metrics docs benchmarks studies models/ship.py
SCRIPTS = train.py baseline.py experiment.py predict.py app.py export_onnx.py
# Finished runs that `make docs` reads: the quickstart's folder, then experiments. Empty: only what docs/results holds.
RUNS ?=

.PHONY: setup test fast lint docs sync-model

setup:  ## install everything that tests and linters need, and the project itself
	$(PYTHON) -m pip install -r requirements-dev.txt
	$(PYTHON) -m pip install --no-deps --no-build-isolation -e .

test:  ## run all tests
	$(PYTHON) -m pytest

fast:  ## run the tests that answer soon
	$(PYTHON) -m pytest -m "not slow"

lint:  ## check style and types
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy $(wildcard *_ser_align.py) $(SCRIPTS) $(PACKAGES)

docs:  ## write the generated documents and blocks
	$(PYTHON) -m docs.build.make $(RUNS)

sync-model:  ## copy the Hub files into the models that ship
	for config in models/*/config.json; do \
	  rm -f "$$(dirname "$$config")"/*_ser_align.py && cp *_ser_align.py "$$(dirname "$$config")" || exit 1; \
	done
