# Each target does all of its own set-up. Another interpreter: make test PYTHON=python3.12
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready

.PHONY: demo test check docs-check bench clean

$(READY): requirements.txt requirements-dev.txt requirements-clusters.txt
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -r requirements.txt -r requirements-dev.txt
	$(BIN)/python -m pip install --quiet --no-deps -r requirements-clusters.txt
	touch $(READY)

# Train in stages on ten kinds of drawn car, predict their test photos, say where to look.
demo: $(READY)
	rm -rf outputs/demo
	$(BIN)/python train.py experiment=demo hydra.run.dir=outputs/demo
	$(BIN)/python predict.py ckpt=outputs/demo
	@echo
	@echo "the photos    data/demo/overview.png"
	@echo "the training  outputs/demo/curves.png"
	@echo "its worth     outputs/demo/evaluation/report.html"
	@echo "your photos   $(BIN)/python train.py data=folder data.root=DIR"

test: $(READY)
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# Every command of the README and docs/ composes, every file they name is there; the image, likewise.
docs-check: $(READY)
	$(BIN)/python -m pytest tests/test_readme.py tests/test_docs.py tests/test_docker.py

bench: $(READY)
	@set -e; for name in loader cache policy folding predict million saved_predictions "step --quick"; do \
	  set -- $$name; echo "== $$name"; $(BIN)/python benchmarks/$$1.py $$2; done

clean:
	rm -rf $(VENV)
