# make setup   .venv with the server and what its tests need (again only when setup.cfg or pyproject.toml has changed)
# make run     the server in the foreground; without a configuration a sandbox on loopback ports that says what to type next
# make test    the whole suite, two modules side by side; warnings are errors.  T=tests.mail runs a part, J=4 four side by side
# make proof   a long proof, for ten minutes: P=powercut, kills, growth, fuzz, packages, moving, mutants M=queue/outcome_writer or M=delivery (docs/reliability.md); SECONDS=3600 for longer; goes on where it was
# make check   ruff, mypy --strict, the import contracts
# make bench   the benchmark (bench/run --help)
# make dist    sdist, wheel and bill of materials in dist/; the same commit gives the same octets (docs/installing.md)
# make deb     the Debian packages in dist/, with what release/requirements.lock pins
# make clean   everything that was built; data of the sandbox too

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
T      ?= tests
J      ?= 2
P      ?= powercut
SECONDS ?= 600
M       ?= queue/outcome_writer
CONFIG ?=

# Our warnings are errors.  The exceptions are what others use, each by name.
WARNINGS := -W error \
    -W "ignore:'spwd' is deprecated:DeprecationWarning" \
    -W "ignore:'crypt' is deprecated:DeprecationWarning" \
    -W ignore::DeprecationWarning:passlib.utils

.PHONY: setup run test proof check bench dist deb clean

setup: $(STAMP)

# editable_mode=compat puts the checkout itself on sys.path: with the default, Twisted does not find twisted/plugins here.
$(STAMP): setup.cfg pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --config-settings editable_mode=compat -e '.[test,dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps 'ldaptor >= 21.2, < 22'
	touch $@

run: $(STAMP)
	$(BIN)/twistd -n mailserver $(if $(CONFIG),--config $(CONFIG),--sandbox sandbox)

test: $(STAMP)
	$(BIN)/python -bb -X faulthandler $(WARNINGS) -m tests.side_by_side --jobs $(J) $(T)

proof: $(STAMP)
	$(BIN)/python $(WARNINGS) -m tests.proofs $(P) --seconds $(SECONDS) --module $(M) $(ARGS)

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

bench: $(STAMP)
	bench/run $(ARGS)

dist: $(STAMP)
	$(BIN)/python -m release.dist dist

deb: dist
	release/deb dist

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage* sandbox
	rm -rf _trial_temp* proofs .peers
	find . -name __pycache__ -prune -exec rm -rf {} +
	rm -f twisted/plugins/dropin.cache twistd.log twistd.pid
