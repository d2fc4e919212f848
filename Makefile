# `make demo` and `make test` set everything up in .venv and run; the other targets are for those who change the code.
PYTHON ?= python3
BIN := .venv/bin
OFFLINE := HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1

.PHONY: demo test test-slow test-common lint format
.DEFAULT_GOAL := test

.venv/.installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[demo,test]'
	touch $@

demo: .venv/.installed
	$(OFFLINE) $(BIN)/mhex demo

test: .venv/.installed lint
	$(OFFLINE) $(BIN)/python -m pytest -n 2 --dist loadfile

test-slow: .venv/.installed
	$(OFFLINE) $(BIN)/python -m pytest -m slow

test-common: .venv/.installed
	rm -f outputs/common_tests.xml
	folder=$$($(BIN)/python tests/common/prepare.py) && { \
	$(OFFLINE) RUN_SLOW=1 TRANSFORMERS_TESTS=$$folder $(BIN)/python -m pytest -m slow tests/common \
		--quiet --junit-xml=outputs/common_tests.xml; \
	$(BIN)/python tests/common/summary.py outputs/common_tests.xml docs/common_tests.md; }

lint: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: .venv/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
