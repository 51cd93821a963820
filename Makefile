# make help    tells what there is. Needed: Python 3.10 to 3.13, make, the package index. Nothing leaves this folder but
#              pip's own cache, and nothing needs root.
#
# Each interpreter (PYTHON=...) gets a virtual environment of its own, .venv/<its version>-<machine>, made when it is
# missing. A file in it remembers that the install is done; a newer setup.cfg, pyproject.toml or constraints.txt, or a
# checkout that was moved, installs again.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test fuzz lint format docs install clean

# PYTHON: the one asked for, else the first here that we support, else python3 (which is then refused with a reason). Each
# is run, not only looked up: the shims of version managers exist for interpreters that do not.
ifndef PYTHON
PYTHON := $(shell for python in python3.11 python3.12 python3.10 python3.13; do \
  if $$python -c "" 2>/dev/null; then echo $$python; exit; fi; done; echo python3)
endif

SUPPORTED := 3.10 to 3.13
VERSION   := $(shell "$(PYTHON)" -c 'import platform; print("%s-%s" % (platform.python_version(), platform.machine()))' 2>/dev/null)
VENV      := .venv/$(VERSION)
RUN       := $(VENV)/bin/python
# A virtual environment holds absolute paths, so the checkout's own path is part of the files' names.
HERE      := $(firstword $(shell printf '%s' "$(CURDIR)" | cksum))
CREATED   := $(VENV)/created-$(HERE)
INSTALLED := $(VENV)/installed-$(HERE)

DEMO_ARGS   ?=
FUZZ_ARGS   ?=
PYTEST_ARGS ?=

# The pins hold for what pip builds, too: older pips read the first of these for that, newer ones the second.
export PIP_CONSTRAINT := constraints.txt
export PIP_BUILD_CONSTRAINT := constraints.txt
export PIP_USE_PEP517 := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
PIP := $(RUN) -m pip --require-virtualenv

help:  ## this list (the default)
	@echo "make TARGET [PYTHON=interpreter], with"
	@sed -n 's/^\([a-z]*\):[^#]*## \(.*\)/  \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 12
	@echo "Interpreter: $(PYTHON) ($(or $(VERSION),which does not run)); environment: $(if $(VERSION),$(VENV),none)"

demo: $(INSTALLED)  ## make a corpus, pretrain, fine-tune with SKD, decode both exits (DEMO_ARGS="--out DIR")
	$(RUN) -m fairseq_skd.demo $(DEMO_ARGS)

test: lint  ## lint, then the test suite (PYTEST_ARGS="-k words" chooses tests)
	$(RUN) -m pytest -n 2 --dist loadfile $(PYTEST_ARGS)

fuzz: $(INSTALLED)  ## read 2,100 damaged and hostile checkpoints, about five minutes (FUZZ_ARGS="--seed 2")
	$(RUN) -m tests.fuzz.run $(FUZZ_ARGS)

lint: $(INSTALLED)  ## ruff's check and format, mypy, the arrows between rooms; changes no file
	$(RUN) -m ruff check
	$(RUN) -m ruff format --check
	$(RUN) -m mypy
	$(VENV)/bin/lint-imports

format: $(INSTALLED)  ## let ruff sort the imports and lay out the code
	$(RUN) -m ruff check --select I --fix
	$(RUN) -m ruff format

docs: $(INSTALLED)  ## the documentation as a site, site/index.html; a broken link is an error (Python 3.11 or later)
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict

install: $(INSTALLED)  ## the environment: fairseq, this package (editable), tests and linters
	@echo "Installed in $(VENV); to use it in this shell: . $(VENV)/bin/activate"

clean:  ## remove the virtual environments, all of them
	rm -rf .venv

$(CREATED):
	$(if $(VERSION),,$(error PYTHON=$(PYTHON) does not run as a Python interpreter; give one of Python $(SUPPORTED), e.g. make PYTHON=/usr/bin/python3.11))
	$(if $(filter 3.10.% 3.11.% 3.12.% 3.13.%,$(VERSION)),,$(error $(PYTHON) is Python $(VERSION), but fairseq_skd needs Python $(SUPPORTED); name another interpreter, e.g. make PYTHON=python3.11))
	$(if $(shell "$(PYTHON)" -c 'import venv, ensurepip; print("both")' 2>/dev/null),,$(error $(PYTHON) cannot make virtual environments, as its modules venv and ensurepip are not there; install them (Debian and Ubuntu: the package python3-venv) or name another interpreter with PYTHON=))
	"$(PYTHON)" -m venv --clear $(VENV)
	@touch $@

$(INSTALLED): $(CREATED) setup.cfg pyproject.toml constraints.txt
	$(PIP) install pip
	$(PIP) install --editable '.[dev]'
	@touch $@
