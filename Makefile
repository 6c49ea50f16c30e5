# Everything a user or contributor types. `make demo` and `make test` need nothing but Python 3.11 or newer.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := .demo
SECONDS ?= 600

.PHONY: help demo test unit unit-all clients lint types sanitize fuzz conformance fidelity bench docs clean

help:
	@echo "make demo         install into $(VENV) and build a real example, twice"
	@echo "make test         everything needed to trust this checkout"
	@echo "make unit         the fast tests only"
	@echo "make clients      what else the server is tested with: the npm client, schemathesis; needs a network"
	@echo "make lint types   ruff, mypy"
	@echo "make sanitize     the kernels under the address and undefined-behaviour sanitizers"
	@echo "make fuzz         look for inputs that break a reader: SECONDS=600 for each, TARGET=gguf"
	@echo "make conformance  compare with reference data, where MODELBUILD_SHARED points to it"
	@echo "make docs         the documentation as a web site in site/; checks its links"
	@echo "make fidelity     the same, written down in docs/fidelity.md"
	@echo "make bench        the benchmarks, side by side with the references"

$(BIN)/modelbuild: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/.test: $(BIN)/modelbuild
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[test]"
	@touch $@

$(VENV)/.dev: $(VENV)/.test
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[dev]"
	@touch $@

demo: $(BIN)/modelbuild
	@sh examples/demo.sh $(BIN)/modelbuild $(DEMO)

test: lint types unit-all

unit-all: $(VENV)/.test
	$(BIN)/python -m pytest -q -n 2 tests

unit: $(VENV)/.test
	$(BIN)/python -m pytest -q -n 2 tests/unit tests/property

clients: $(VENV)/.test
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[clients]"
	@if command -v npm >/dev/null; \
	then npm install --prefix .clients --no-audit --no-fund --no-update-notifier --loglevel=error ollama@0.6; \
	else echo "no npm here: the JavaScript client is not tested"; fi

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

sanitize: $(VENV)/.test
	@if command -v "$${CC:-gcc}" >/dev/null; then bash tests/native/run_sanitized.sh $(BIN)/python; \
	else echo "no C compiler here: the kernels are not built, so there is nothing to sanitize"; fi

fuzz: $(VENV)/.test
	@if $(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[fuzz]"; \
	then $(BIN)/python -m tests.fuzz.run --seconds $(SECONDS) $(TARGET); \
	else echo "no atheris for this Python: nothing is fuzzed"; fi

conformance: $(VENV)/.test
	$(BIN)/python -m pytest -q tests/conformance

fidelity: $(VENV)/.test
	-$(BIN)/python -m pytest -q tests/conformance --junitxml fidelity.xml
	$(BIN)/python docs/generate_fidelity.py fidelity.xml

bench: $(VENV)/.test
	$(BIN)/python -m benchmarks --write

docs: $(VENV)/.test
	$(BIN)/python docs/build_site.py site

clean:
	rm -rf site $(VENV) $(DEMO) .clients dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
