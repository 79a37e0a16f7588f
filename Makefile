# The two commands a newcomer needs: `make demo` and `make test`. Each sets up what it needs itself.
PYTHON ?= python3
VENV   ?= .venv
PEERS  ?= $(HOME)/.cache/epoch-oci/peers/bin
BIN    := $(VENV)/bin
export EPOCH_OCI_PEERS := $(PEERS)

ORAS_VERSION     := v1.3.6
CRANE_VERSION    := v0.22.1
REGCTL_VERSION   := v0.11.7
REGISTRY_VERSION := v3.1.2
VERSITY_VERSION  := v1.8.0
ACTIONLINT_VERSION := v1.7.12
AJV_VERSION      := 8.20.0
AJV_FORMATS_VERSION := 3.0.1
SARIF_MULTITOOL_VERSION := 5.7.0
COSIGN_VERSION   := v2.4.3
NOTATION_VERSION := v1.3.2

.PHONY: demo test test-long coverage mutants check docs docs-cli bench bench-quick peers format package test-package lint-deploy signers clean

demo: $(BIN)/.run
	$(BIN)/epoch-oci demo

test: export EPOCH_OCI_INSTALL_LIVE = 1
test: $(BIN)/.dev
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m "not long"

# The quick tests with the branches they take; fails below the floor in pyproject.toml.
coverage: export EPOCH_OCI_INSTALL_LIVE = 1
coverage: export COVERAGE_FOLDER = $(CURDIR)/.coverage
coverage: $(BIN)/.dev
	rm -rf .coverage && mkdir .coverage
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m "not long" --cov --cov-report= --cov-fail-under=0
	$(BIN)/python -m coverage combine -q --append .coverage; $(BIN)/python -m coverage report

# Changes the code and sees whether a quick test notices: those that must never survive, then as many as mutmut finds in
# transfer/, registry/ and dialects/ (hours; `mutmut results` lists what survived, docs/mutants.md what was made of it).
mutants: $(BIN)/.dev
	$(BIN)/python tests/mutants.py
	$(BIN)/mutmut run

test-long: $(BIN)/.dev
	$(BIN)/python -m pytest -n 2 --dist loadgroup --timeout 1800

check: $(BIN)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python .ci/check_schemas.py
	$(BIN)/python .ci/docs_cli.py --check

# The parts of docs/cli.md that repeat the parser.
docs-cli: $(BIN)/.dev
	$(BIN)/python .ci/docs_cli.py

format: $(BIN)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The documentation as a site, in site/: strict, and each link looked at once more in what came out. Nothing is fetched.
docs: $(BIN)/.docs
	rm -rf site
	$(BIN)/sphinx-build -c docs -b html -W --keep-going -q -j auto . site -d site/.doctrees
	rm -rf site/.doctrees site/.buildinfo
	$(BIN)/python .ci/check_site.py site

# dist/ with what can be published: the wheel built from the source archive, both checked, and built once more elsewhere to
# the same bytes. A release sets SOURCE_DATE_EPOCH to the time of its commit.
package: export SOURCE_DATE_EPOCH ?= 1735689600
package: $(BIN)/.package
	rm -rf dist
	$(BIN)/python -m build --no-isolation --outdir dist .
	$(BIN)/python -m twine check --strict dist/*
	$(BIN)/check-wheel-contents dist/*.whl
	$(BIN)/pyroma --min=10 dist/*.tar.gz
	$(BIN)/python .ci/check_package.py dist

# What was packed passes its own tests, in an environment of its own.
test-package: package
	sh .ci/test_package.sh dist $(PYTHON)

# examples/deploy and the workflows, each by its own linter.
lint-deploy: $(BIN)/.deploy
	PATH="$(CURDIR)/$(BIN):$(PEERS):$$PATH" sh .ci/lint_deploy.sh

# Push and pull beside every foreign client that is found; writes benchmarks/RESULTS.md, and VERSIONS.md for
# what versions of a guest cost. About 45 minutes.
bench: $(BIN)/.dev peers
	$(BIN)/python -m benchmarks.run
	$(BIN)/python -m benchmarks.versions

# The races that programs decide, not disks or lines, in five minutes; prints where the results are.
bench-quick: $(BIN)/.dev peers
	$(BIN)/python -m benchmarks.run --quick

# Foreign clients for the live tests and benchmarks: from Debian where this is root, with Go where there is a toolchain.
peers:
	@sh .ci/peers.sh "$(PEERS)" $(ORAS_VERSION) $(CRANE_VERSION) $(REGCTL_VERSION) $(REGISTRY_VERSION) \
	  $(VERSITY_VERSION) $(ACTIONLINT_VERSION) $(AJV_VERSION) $(AJV_FORMATS_VERSION) \
	  $(SARIF_MULTITOOL_VERSION)

# The signers of docs/signing.md, for its live tests: some minutes of compiling.
signers:
	cd / && GOBIN="$(PEERS)" GOFLAGS=-trimpath go install github.com/sigstore/cosign/v2/cmd/cosign@$(COSIGN_VERSION)
	cd / && GOBIN="$(PEERS)" GOFLAGS=-trimpath go install github.com/notaryproject/notation/cmd/notation@$(NOTATION_VERSION)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "no venv module; trying to install it"; apt-get update -q && apt-get install -y -q python3-venv && $(PYTHON) -m venv $(VENV); }
	@$(BIN)/python -m pip install --quiet --upgrade pip

$(BIN)/.run: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(BIN)/.dev: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	@touch $@ $(BIN)/.run

$(BIN)/.docs: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable ".[docs]"
	@touch $@

$(BIN)/.deploy: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable ".[deploy]"
	@touch $@ $(BIN)/.run

$(BIN)/.package: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable ".[package]"
	@touch $@ $(BIN)/.run

clean:
	rm -rf $(VENV) dist site .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage mutants
