# Everything a user or contributor types. `make demo` and `make test` need nothing but Python 3.11 or newer.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := .demo
SBOM := .sbom
SECONDS ?= 600

.PHONY: help demo test unit unit-all clients lint types sanitize fuzz conformance fidelity bench docs man transcript dist sbom clean

help:
	@echo "make demo         install into $(VENV) and build a real example, twice"
	@echo "make test         everything needed to trust this checkout"
	@echo "make unit         the fast tests only"
	@echo "make clients      what else the server is tested with: the npm client, schemathesis; needs a network"
	@echo "make lint types   ruff, mypy"
	@echo "make sanitize     the kernels under the address and undefined-behaviour sanitizers"
	@echo "make fuzz         look for inputs that break a reader: SECONDS=600 for each, TARGET=gguf"
	@echo "make conformance  compare with reference data, where MODELBUILD_SHARED points to it"
	@echo "make fidelity     the same, written down in docs/fidelity.md"
	@echo "make docs         the documentation as a web site in site/; checks its links"
	@echo "make man          the manual page and the table of commands, from the commands"
	@echo "make transcript   README and tutorial, typed into a shell in an empty home; needs a network"
	@echo "make dist         wheel, sdist and bill of materials in dist/; needs a network"
	@echo "make bench        the benchmarks, side by side with the references"

NATIVE := $(wildcard modelbuild/quantize/native/*.* modelbuild/quantize/native/*/*.h)
# The first installation compiles the kernels; the others only add packages.
ADD := MODELBUILD_BUILD_NATIVE=skip $(BIN)/python -m pip install --quiet --disable-pip-version-check

# Stamps, because pip makes $(BIN)/modelbuild anew every time.
$(VENV)/.base: pyproject.toml hatch_build.py $(NATIVE)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/.test: $(VENV)/.base
	$(ADD) -e ".[test]"
	@touch $@

$(VENV)/.dev: $(VENV)/.test
	$(ADD) -e ".[dev,release]"
	@touch $@

demo: $(VENV)/.base
	@sh examples/demo.sh $(BIN)/modelbuild $(DEMO)

test: lint types unit-all

unit-all: $(VENV)/.test
	$(BIN)/python -m pytest -q -n 2 tests

unit: $(VENV)/.test
	$(BIN)/python -m pytest -q -n 2 tests/unit tests/property

clients: $(VENV)/.test
	$(ADD) -e ".[clients]"
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
	@if $(ADD) -e ".[fuzz]"; \
	then $(BIN)/python -m tests.fuzz.run --seconds $(SECONDS) $(TARGET); \
	else echo "no atheris for this Python: nothing is fuzzed"; fi

conformance: $(VENV)/.test
	$(BIN)/python -m pytest -q tests/conformance

fidelity: $(VENV)/.test
	-$(BIN)/python -m pytest -q tests/conformance tests/e2e/test_families.py --junitxml fidelity.xml
	$(BIN)/python docs/generate_fidelity.py fidelity.xml

bench: $(VENV)/.test
	$(BIN)/python -m benchmarks --write

docs: $(VENV)/.test
	$(BIN)/python docs/build_site.py site

man: $(VENV)/.test
	$(BIN)/python docs/generate_manual.py
	$(BIN)/python docs/generate_cli_reference.py

# With nothing of this checkout's environment: it installs one of its own.
transcript:
	$(PYTHON) docs/generate_transcript.py

# The wheel is made from the sdist. Equal sources give equal bytes.
dist: $(VENV)/.dev
	rm -rf dist
	$(BIN)/python -m build --outdir dist
	$(MAKE) sbom

# What an installation with all extras consists of, as CycloneDX.
sbom: $(VENV)/.dev
	rm -rf $(SBOM) && $(PYTHON) -m venv --without-pip $(SBOM)
	$(BIN)/python -m pip --python $(SBOM)/bin/python install --quiet --disable-pip-version-check \
		--find-links dist "modelbuild[server,remote,render,dask] == $$($(BIN)/modelbuild --version | sed 's/.* //')"
	$(BIN)/python -m cyclonedx_py environment --output-reproducible --of JSON --output-file dist/modelbuild.cdx.json \
		$(SBOM)/bin/python
	rm -rf $(SBOM)

clean:
	rm -rf site $(VENV) $(DEMO) $(SBOM) .clients dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
