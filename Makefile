# Each target first builds .venv if it is missing, or older than what it is built from.

PYTHON ?= python3
PIP    := pip==26.3
BIN    := .venv/bin
ENV    := .venv/.stamp
TORCH   = $(shell grep '^torch==' constraints.txt)
ARGS   ?=
WORKERS ?= 2
PYTEST  = $(BIN)/python -m pytest -n $(WORKERS) --dist loadscope --no-loadscope-reorder

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-all check bench bench-gpu browser readme docs catalogue units units-again optimizers optimizers-elsewhere halfspace compacting release-check least freeze clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' Makefile

demo: $(ENV) ## Train the example and write its figures to build/demo
	$(BIN)/penalize demo --output build/demo

test: $(ENV) ## Run the tests; ARGS="-k arrows" goes to pytest, WORKERS=0 runs one process
	$(PYTEST) $(ARGS)

test-all: $(ENV) ## Run them with what is only breadth: every cell, more examples of each property
	$(PYTEST) -m "" --hypothesis-profile=all $(ARGS)

check: $(ENV) ## Check format, style, types and the arrows between modules
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_arrows.py

bench: $(ENV) ## Measure, and write benchmarks/results
	$(BIN)/python benchmarks/import_time.py
	$(BIN)/python benchmarks/torch_penalties.py
	$(BIN)/python benchmarks/torch_path.py
	$(BIN)/python benchmarks/cluster_path.py
	JAX_PLATFORMS=cpu $(BIN)/python benchmarks/jax_step.py
	$(BIN)/python benchmarks/tensorflow_step.py

bench-gpu: $(ENV) ## Measure on a GPU, in under ten minutes, and write benchmarks/results/torch_gpu.md
	$(BIN)/python benchmarks/torch_gpu.py

browser: docs ## Look at a path's page and at the site in headless Chromium, as on a desktop and a phone
	$(BIN)/python scripts/browser.py
	$(BIN)/python scripts/browser_site.py

readme: demo ## Run the demo, and write again what README and the guides show
	$(BIN)/python scripts/readme.py
	ATEN_CPU_CAPABILITY=default $(PYTEST) tests/test_docs.py -k prints  # what holds on other processors

docs: $(ENV) ## Build the site of the documentation into build/site; strict: no link may be broken
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

catalogue: $(ENV) ## Write the tables of docs/regularizers.md and its picture from the regularizers
	$(BIN)/python scripts/catalogue.py

units: $(ENV) ## Write the tables of docs/units.md from penalize.units
	$(BIN)/python scripts/units_page.py

units-again: $(ENV) ## Measure units of packages again, in environments of their own; ONLY="skglm celer"
	$(BIN)/python scripts/units.py $(ONLY)

optimizers: $(ENV) ## Measure every optimizer in every mode, and write docs/optimizers.md
	cd tests && ../$(BIN)/python -m optimizers

optimizers-elsewhere: $(ENV) ## Measure those of other houses, and write docs/optimizers-elsewhere.md; ONLY="timm heavyball"
	$(BIN)/python scripts/optimizers.py $(ONLY)

halfspace: $(ENV) ## Measure half-space steps, and write docs/halfspace.md (half an hour; PARTS="letters late")
	$(BIN)/python scripts/halfspace.py $(PARTS)

compacting: $(ENV) ## Train networks by group lasso, compact them, and write docs/compacting.md (a quarter of an hour)
	$(BIN)/python scripts/compacting.py
	$(BIN)/python scripts/compacting_beside.py

release-check: $(ENV) ## Build what is released, and install it in bare environments; EXTRAS="torch jax"
	$(BIN)/python scripts/release.py $(if $(EXTRAS),--extras $(EXTRAS)) \
	  $(if $(HOME_URL),--home $(HOME_URL)) $(if $(TAG),--tag $(TAG))

least: $(ENV) ## Run a part of the tests with the least versions that pyproject.toml admits
	$(BIN)/python scripts/release.py --least

freeze: ## Write constraints.txt from the versions now in .venv
	@{ echo '# Exact versions of the whole development environment; every install uses them (-c).'; \
	   echo '# Regenerate with "make freeze", after upgrading packages in .venv with pip.'; \
	   { $(BIN)/python -m pip freeze --exclude-editable; \
	     $(BIN)/python -m pip freeze --path .venv/triton; } \
	     | sed -e 's/ @ .*//' -e 's/+cpu$$//' | LC_ALL=C sort -f; } > constraints.new
	@grep -q '^torch==' constraints.new && mv constraints.new constraints.txt

clean: ## Remove the environment and everything that was built
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Triton stands apart: a process that has loaded TensorFlow or JAX dies when it loads Triton's copy of
# LLVM. The test of its kernels runs a process of its own.
# torch goes first and by its exact version, so that the resolver is never offered another build of
# it. The stamp comes last: a failed install leaves none, and the next run tries again.
$(ENV): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q $(PIP)
	$(BIN)/python -m pip install -q -c constraints.txt $(TORCH)
	$(BIN)/python -m pip install -q -c constraints.txt --build-constraint constraints.txt \
	  -e ".[demo,select]" --group dev
	$(BIN)/python -m pip install -q -c constraints.txt --no-deps --target .venv/triton triton
	@touch $@
