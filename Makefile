# `make demo` and `make test` set everything up in .venv and run. The other targets are for those who change the code;
# what they measure goes to results/ and docs/, what they train to outputs/.
PYTHON ?= python3
BIN := .venv/bin
RUN := $(BIN)/python
OFFLINE := HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1
TEST := $(RUN) -m pytest -n 2 --dist loadfile
# make test COVERAGE=yes also measures which lines the tests reach, and fails below the floor in pyproject.toml.
COVERAGE ?=
COVER := $(if $(COVERAGE),--cov --cov-report=term:skip-covered)
STUDIES := hf_mhex.training.studies

RECIPE ?= sample_fashion_mnist
SET ?=
RELEASE = v$(shell sed -n 's/^VERSION = "\(.*\)"/\1/p' modeling/mhex_config.py)
NAME ?= $(notdir $(RECIPE))
TRAINED = outputs/benchmark/$(NAME)

.PHONY: accuracy architectures bench-engines bench-service bench-speed benchmark cards chromium demo dist docs families \
	format lint pictures reference situations test test-app test-common test-cycle test-docs test-engines test-extras test-hub \
	test-latest test-lowest test-older test-oldest test-slow types
.DEFAULT_GOAL := test

# uv where it is there, else pip. make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu takes torch without CUDA.
UV := $(shell command -v uv 2>/dev/null)
VENV := $(if $(UV),$(UV) venv --quiet --seed --allow-existing --python $(PYTHON) .venv,$(PYTHON) -m venv .venv)
PIP := $(if $(UV),$(UV) pip install --quiet --python $(RUN),$(RUN) -m pip install --quiet)
TORCH_INDEX ?=

.venv/.installed: pyproject.toml
	$(VENV)
	$(if $(TORCH_INDEX),$(PIP) --index-url $(TORCH_INDEX) torch torchvision)
	$(PIP) --editable '.[demo,test]'
	touch $@

demo: .venv/.installed
	$(OFFLINE) $(BIN)/mhex demo

# Tests

test: .venv/.installed lint
	OMP_NUM_THREADS=1 $(OFFLINE) $(TEST) $(COVER)

test-slow: .venv/.installed
	$(OFFLINE) $(RUN) -m pytest -m slow

test-extras: .venv/.installed
	$(PIP) --editable '.[bench,export,signals]'
	OMP_NUM_THREADS=1 $(OFFLINE) $(TEST) tests/baselines tests/benchmarks tests/evaluation tests/export \
		tests/cli/test_smx.py tests/training/test_signals.py

# On Ray and Spark, which needs Java 17: apt-get install openjdk-17-jre-headless
test-engines: .venv/.installed
	$(PIP) --editable '.[engines]'
	$(OFFLINE) $(RUN) -m pytest -m slow tests/explaining/test_engines.py

test-hub: .venv/.installed
	$(TEST) -m 'slow or not slow' tests/hub --ignore tests/hub/test_app.py --ignore tests/hub/test_space.py

# What .ci/run does of it: models, one of a family from outside, are published, pulled and used over a Hub on 127.0.0.1;
# and what a process without any extra can do.
test-cycle: .venv/.installed
	OMP_NUM_THREADS=1 $(TEST) -m 'slow or not slow' tests/hub/test_cycle.py tests/modeling/test_toy_family.py \
		tests/test_public.py::test_a_base_install_converts_explains_shows_and_publishes

test-app: .venv/.installed chromium
	$(OFFLINE) $(RUN) -m pytest -m 'slow or not slow' tests/hub/test_app.py tests/hub/test_space.py

# The lower bounds of pyproject.toml, and the newest releases, in environments of their own: results/versions.md.
test-lowest: .venv/.installed
	$(PIP) uv
	$(RUN) tests/support/versions.py lowest --python 3.10

test-latest: .venv/.installed
	$(PIP) uv
	$(RUN) tests/support/versions.py latest --python 3.13

test-older: .venv/.installed
	OLDER_TABLE=results/older_transformers.md $(RUN) -m pytest -m slow tests/modeling/test_older_transformers.py

# The part of it that .ci/run does: the oldest releases that open a family.
test-oldest: .venv/.installed
	$(RUN) -m pytest -m slow tests/modeling/test_older_transformers.py -k "4.57.3 or 5.0.0"

test-common: .venv/.installed
	rm -f outputs/common_tests.xml
	folder=$$($(RUN) tests/common/prepare.py) && { \
	$(OFFLINE) RUN_SLOW=1 TRANSFORMERS_TESTS=$$folder $(RUN) -m pytest -m slow tests/common \
		--quiet --junit-xml=outputs/common_tests.xml; \
	$(RUN) tests/common/summary.py outputs/common_tests.xml results/common_tests.md; }

chromium: .venv/.installed
	command -v chromium || (apt-get update && apt-get install --yes chromium)
	$(PIP) --editable '.[app,browser]'

# The site, in outputs/site; its notebooks run in it.
docs: .venv/.installed
	$(PIP) --editable '.[demo,docs]'
	OMP_NUM_THREADS=1 $(OFFLINE) $(RUN) -m sphinx --builder html --conf-dir docs --nitpicky --fail-on-warning --keep-going \
		--quiet . outputs/site

# Every piece of code on the site runs, every link in it leads somewhere.
test-docs: docs
	$(PIP) --editable '.[bench]'
	OMP_NUM_THREADS=1 $(OFFLINE) $(RUN) -m pytest -m 'slow or not slow' tests/test_readme.py tests/test_docs.py

# Published figures

# What is shown of the demo's models: tables, docs/demo.png, results/demo.json, model_cards/, pictures of the app.
cards: demo chromium
	$(MAKE) pictures

pictures:
	$(RUN) -m $(STUDIES).readme outputs/demo
	for model in $$(ls -d outputs/demo/*/ | xargs -n 1 basename); do \
		test ! -f outputs/demo/$$model/config.json || \
		$(OFFLINE) $(BIN)/mhex card outputs/demo/$$model hf-mhex/$$model --revision $(RELEASE) \
			--output model_cards/$$model || exit 1; \
	done
	$(OFFLINE) $(RUN) tests/hub/screenshot.py outputs/demo docs

# make benchmark RECIPE=medmnist/pneumoniamnist SET="source=pneumoniamnist.npz"; the two networks are measured side by
# side, one thread each, and what is there already (models, rows) is not made again. NAME=shapes names the set otherwise.
benchmark: .venv/.installed
	$(PIP) --editable '.[bench]'
	test -d $(TRAINED)/mhex/model || $(OFFLINE) $(BIN)/mhex train $(RECIPE) $(SET) --output $(TRAINED)/mhex
	test -d $(TRAINED)/plain/model || \
		$(OFFLINE) $(BIN)/mhex train $(RECIPE) $(SET) model.kind=plain --output $(TRAINED)/plain
	compare="$(BIN)/mhex benchmark explanations $(RECIPE) $(TRAINED)/mhex/model $(SET) \
		--plain $(TRAINED)/plain/model --output results/explanations/$(NAME)"; \
	export OMP_NUM_THREADS=1 $(OFFLINE); \
	$$compare --on plain & plain=$$!; $$compare --on mhex && wait $$plain && $$compare
	$(RUN) -m hf_mhex.benchmarks.explanations.index results/explanations

bench-speed: .venv/.installed
	$(PIP) --editable '.[bench,export]'
	$(OFFLINE) $(BIN)/mhex benchmark speed --parts comparison,passes,memory --output results/speed
	for part in families growth onnx profile compiled; do \
		$(OFFLINE) $(BIN)/mhex benchmark speed --parts $$part --output results/speed/$$part || exit 1; \
	done

# Explanations beside predictions by the workers of an engine, and in a server.
bench-engines: .venv/.installed
	$(PIP) --editable '.[engines]'
	OMP_NUM_THREADS=1 $(OFFLINE) $(RUN) -m $(STUDIES).engines results/engines

bench-service: .venv/.installed
	OMP_NUM_THREADS=1 $(OFFLINE) $(RUN) -m $(STUDIES).service results/service

architectures: .venv/.installed
	for family in resnet convnext vit swin; do \
		$(OFFLINE) $(RUN) -m $(STUDIES).architectures $$family results/architectures || exit 1; \
	done

situations: .venv/.installed
	$(PIP) --editable '.[export]'
	$(OFFLINE) $(RUN) -m $(STUDIES).situations tests/fixtures results

# make accuracy SET=ag_news SOURCE=ag_news_test.csv
accuracy: .venv/.installed
	$(PIP) --editable '.[bench]'
	OMP_NUM_THREADS=1 $(OFFLINE) $(RUN) -m $(STUDIES).accuracy $(SET) source=$(SOURCE) --output results/accuracy

# make families ONLY="roberta;vit"
families: .venv/.installed
	OMP_NUM_THREADS=1 $(OFFLINE) $(RUN) -m $(STUDIES).families results/families $(if $(ONLY),--only "$(ONLY)")

# make reference MODEL=mhex-bert-ag-news SOURCE=ag_news_test.csv
reference: .venv/.installed
	$(OFFLINE) $(RUN) -m $(STUDIES).reference $(MODEL) source=$(SOURCE) --revision $(RELEASE) --cards model_cards

# Source

# mypy reads the package as it is installed, with its three folders in one.
types: .venv/.installed
	rm -rf outputs/types && mkdir -p outputs/types/hf_mhex
	ln -s $(CURDIR)/hf_mhex/* outputs/types/hf_mhex
	ln -s $(CURDIR)/modeling $(CURDIR)/training $(CURDIR)/model_cards outputs/types/hf_mhex
	cd outputs/types && $(CURDIR)/$(BIN)/mypy --config-file $(CURDIR)/pyproject.toml --cache-dir ../mypy

dist: .venv/.installed
	$(PIP) build check-wheel-contents twine
	rm -rf dist
	$(RUN) -m build --outdir dist
	$(BIN)/twine check --strict dist/*
	$(BIN)/check-wheel-contents dist/*.whl

lint: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: .venv/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
