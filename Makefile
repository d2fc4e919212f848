# `make demo` and `make test` set everything up in .venv and run; the other targets are for those who change the code.
PYTHON ?= python3
BIN := .venv/bin
OFFLINE := HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1

RECIPE ?= sample_fashion_mnist
SET ?=
RELEASE = v$(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
TRAINED = outputs/benchmark/$(RECIPE)

.PHONY: accuracy architectures bench-speed benchmark cards demo format lint pictures reference test test-app test-common test-extras test-hub test-slow
.DEFAULT_GOAL := test

.venv/.installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[demo,test]'
	touch $@

demo: .venv/.installed
	$(OFFLINE) $(BIN)/mhex demo

test: .venv/.installed lint
	OMP_NUM_THREADS=1 $(OFFLINE) $(BIN)/python -m pytest -n 2 --dist loadfile

test-slow: .venv/.installed
	$(OFFLINE) $(BIN)/python -m pytest -m slow

test-extras: .venv/.installed
	$(BIN)/python -m pip install --quiet --editable '.[bench,export]'
	OMP_NUM_THREADS=1 $(OFFLINE) $(BIN)/python -m pytest -n 2 --dist loadfile tests/baselines tests/benchmarks tests/evaluation tests/export

test-hub: .venv/.installed
	$(BIN)/python -m pytest -n 2 --dist loadfile -m 'slow or not slow' tests/hub \
		--ignore tests/hub/test_app.py --ignore tests/hub/test_space.py

test-app: .venv/.installed
	command -v chromium || (apt-get update && apt-get install --yes chromium)
	$(BIN)/python -m pip install --quiet --editable '.[app,browser]'
	$(OFFLINE) $(BIN)/python -m pytest -m 'slow or not slow' tests/hub/test_app.py tests/hub/test_space.py

test-common: .venv/.installed
	rm -f outputs/common_tests.xml
	folder=$$($(BIN)/python tests/common/prepare.py) && { \
	$(OFFLINE) RUN_SLOW=1 TRANSFORMERS_TESTS=$$folder $(BIN)/python -m pytest -m slow tests/common \
		--quiet --junit-xml=outputs/common_tests.xml; \
	$(BIN)/python tests/common/summary.py outputs/common_tests.xml results/common_tests.md; }

architectures: .venv/.installed
	$(OFFLINE) $(BIN)/python -m hf_mhex.training.studies.architectures results/architectures

# All that is shown of the demo's models, made anew: README table, docs/demo.png, results/demo.json, model_cards/ and
# the pictures of the app.
cards: demo
	command -v chromium || (apt-get update && apt-get install --yes chromium)
	$(BIN)/python -m pip install --quiet --editable '.[app,browser]'
	$(MAKE) pictures

pictures:
	$(BIN)/python -m hf_mhex.training.studies.readme outputs/demo
	for model in mhex-resnet-fashion-mnist mhex-bert-product-reviews; do \
		$(OFFLINE) $(BIN)/mhex card outputs/demo/$$model hf-mhex/$$model --revision $(RELEASE) \
			--output model_cards/$$model || exit 1; \
	done
	$(OFFLINE) $(BIN)/python tests/hub/screenshot.py outputs/demo docs

# make benchmark RECIPE=medmnist/pneumoniamnist SET="source=pneumoniamnist.npz"; the two networks are measured side by
# side, one thread each, and what is there already (models, rows) is not made again.
benchmark: .venv/.installed
	$(BIN)/python -m pip install --quiet --editable '.[bench]'
	test -d $(TRAINED)/mhex/model || $(OFFLINE) $(BIN)/mhex train $(RECIPE) $(SET) --output $(TRAINED)/mhex
	test -d $(TRAINED)/plain/model || \
		$(OFFLINE) $(BIN)/mhex train $(RECIPE) $(SET) model.kind=plain --output $(TRAINED)/plain
	compare="$(BIN)/mhex benchmark explanations $(RECIPE) $(TRAINED)/mhex/model $(SET) \
		--plain $(TRAINED)/plain/model --output results/explanations/$(notdir $(RECIPE))"; \
	export OMP_NUM_THREADS=1 $(OFFLINE); \
	$$compare --on plain & plain=$$!; $$compare --on mhex && wait $$plain && $$compare
	$(BIN)/python -m hf_mhex.benchmarks.explanations.index results/explanations

bench-speed: .venv/.installed
	$(BIN)/python -m pip install --quiet --editable '.[bench]'
	$(OFFLINE) $(BIN)/mhex benchmark speed --output results/speed

# make accuracy SET=ag_news SOURCE=ag_news_test.csv
accuracy: .venv/.installed
	$(BIN)/python -m pip install --quiet --editable '.[bench]'
	OMP_NUM_THREADS=1 $(OFFLINE) $(BIN)/python -m hf_mhex.training.studies.accuracy $(SET) source=$(SOURCE) --output results/accuracy

# make reference MODEL=mhex-bert-ag-news SOURCE=ag_news_test.csv
reference: .venv/.installed
	$(OFFLINE) $(BIN)/python -m hf_mhex.training.studies.reference $(MODEL) source=$(SOURCE) --revision $(RELEASE) --cards model_cards

lint: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: .venv/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
