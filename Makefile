# Two commands for a newcomer: `make demo` and `make test`. Both start from a bare clone and need Python >= 3.11.

PYTHON ?= python3
BASE := .venv-base
FULL := .venv

.PHONY: help demo test lint check examples demo-model saliency-results report clean

help:  ## Say what each target does.
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(BASE)/ready: pyproject.toml
	PYTHON=$(PYTHON) tools/environment $(BASE) .

$(FULL)/ready: pyproject.toml
	PYTHON=$(PYTHON) tools/environment $(FULL) '.[train,cluster,clinical,serve,phantom,audit,explain,dev]'

demo: $(BASE)/ready  ## Install the base (no torch) and screen everything in examples/.
	$(BASE)/bin/mskscreen predict examples

lint: $(FULL)/ready  ## Formatting, lint, types and the floors of the architecture.
	$(FULL)/bin/ruff format --check .
	$(FULL)/bin/ruff check .
	$(FULL)/bin/mypy
	$(FULL)/bin/lint-imports

check: $(FULL)/ready  ## Run the tests only.
	OMP_NUM_THREADS=1 $(FULL)/bin/pytest -n 2

test: lint check  ## Install everything, then lint, types, floors and tests.

examples: $(FULL)/ready  ## Regenerate examples/ from its seed.
	$(FULL)/bin/python tools/make_examples.py

# glibc hands freed tensors back to the kernel and faults them in again at every step; keeping them makes
# training several times faster where page faults are dear.
KEEP := MALLOC_MMAP_THRESHOLD_=17179869184 MALLOC_TRIM_THRESHOLD_=17179869184

demo-model: $(FULL)/ready  ## Regenerate the bundled demonstration model from nothing (about eight hours on 2 cores).
	$(KEEP) $(FULL)/bin/python tools/make_demo_model.py

saliency-results: $(FULL)/ready  ## Measure all maps of the demonstration model on fresh phantoms into docs/results/saliency/.
	$(FULL)/bin/python tools/saliency_results.py

report: $(FULL)/ready  ## Evaluate the demonstration model on its test phantoms (build/demo-model) into docs/results/.
	$(FULL)/bin/python tools/make_report.py

clean:  ## Remove the environments.
	rm -rf $(BASE) $(FULL)
