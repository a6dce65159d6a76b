# `make` lists the targets. All files are created in this folder: .venv for the demo, .venv-test for the rest.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/bash
export PIP_DISABLE_PIP_VERSION_CHECK := 1

DEMO := .venv
TEST := .venv-test
SAMPLES ?= samples/
PHOTOS ?= samples/

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 16

.PHONY: demo
demo: $(DEMO)/.cutline-demo ## Install Cutline into .venv and caption the photographs in samples/
	$(DEMO)/bin/cutline caption $(SAMPLES)

.PHONY: test
test: $(TEST)/.cutline-test ## Install everything into .venv-test, then run all of scripts/check
	@scripts/system-packages || true
	VENV=$(TEST) scripts/check

.PHONY: check
check: $(TEST)/.cutline-test ## Check format, lint, types and layers, without the tests
	VENV=$(TEST) scripts/check --quick

.PHONY: docs
docs: $(TEST)/.cutline-test ## Build the documentation into docs/_build/html
	$(TEST)/bin/python -m sphinx -q -W --keep-going -b html docs docs/_build/html
	@echo "Open docs/_build/html/index.html"

.PHONY: bench
bench: $(TEST)/.cutline-test ## Measure speed and memory here with the photographs in PHOTOS, into bench/results.json
	$(TEST)/bin/python scripts/bench.py $(PHOTOS)

.PHONY: bench-site
bench-site: $(TEST)/.cutline-test ## Measure crawling, drafting and resuming on a synthetic site, into bench/site.json
	$(TEST)/bin/python scripts/bench_site.py --kill

.PHONY: bench-service
bench-service: $(TEST)/.cutline-test ## Compare the service with the command line, into bench/service.json
	$(TEST)/bin/python scripts/bench_service.py

.PHONY: clean
clean: ## Remove .venv-test, the demo's install mark and the tools' caches
	rm -rf $(TEST) $(DEMO)/.cutline-demo .mypy_cache .pytest_cache .ruff_cache .import_linter_cache

# Install again unless .venv contains an editable install of this folder.
linked := $(shell grep -s '"editable": true' $(DEMO)/lib/python*/site-packages/cutline-*.dist-info/direct_url.json)

.PHONY: not-linked
$(DEMO)/.cutline-demo: pyproject.toml $(if $(linked),,not-linked)
	@echo "Installing Cutline and its dependencies into $(DEMO). This takes a minute or two, without output."
	$(call make-venv,$(DEMO))
	$(DEMO)/bin/python -m pip install --quiet --editable .
	@touch $@

$(TEST)/.cutline-test: pyproject.toml
	$(call make-venv,$(TEST))
	$(TEST)/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(TEST)/bin/python -m pip install --quiet --editable '.[train,eval,site,serve,hub,openvino,heic,documents,metadata,ocr,video,server,cloud,ray]' --group dev --group docs
	@touch $@

define make-venv
	@$(1)/bin/python -m pip --version >/dev/null 2>&1 || { \
	    python=$${PYTHON:-$$(scripts/find-python)} && echo "Making $(1) with $$python" && "$$python" -m venv $(1); }
endef
