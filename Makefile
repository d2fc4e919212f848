# `make demo` and `make test` set everything up in .venv and run; the other targets are for those who change the code.
PYTHON ?= python3
BIN := .venv/bin
OFFLINE := HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1

.PHONY: demo test test-slow lint format
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

lint: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: .venv/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
