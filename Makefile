# make study    the quick study, end to end          make test       the tests
# make smoke    the same path on a tiny grid         make test-long  the tests that take longer
# make check    lint, format and types
# make report   report, figures and README's findings, from the tables in results/
# make publish  the study of results/ (hours), its measurements copied to results/, and its report
# make dashboard  the curves of the runs in a browser
# make demo     the study's models side by side in a browser

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
READY_DEV := .venv/.ready-dev
READY_DEMO := .venv/.ready-demo
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: study publish report smoke dashboard demo test test-long check install clean
.DEFAULT_GOAL := study

install: $(READY_DEV)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo 'error: $(PYTHON) is older than 3.11: make PYTHON=python3.12'; exit 1; }
	@$(PYTHON) -m venv .venv || \
		{ echo 'error: $(PYTHON) cannot make a virtual environment: on Debian and Ubuntu apt install python3-venv'; exit 1; }
	$(PIP) -e .
	@touch $@

.venv/.ready-%: $(READY)
	$(PIP) -e '.[$*]'
	@touch $@

study: $(READY)
	@$(BIN)/python preprocessing/run.py
	@$(BIN)/python training/run.py studies/quick.yaml
	@$(BIN)/python analysis/run.py
	@$(BIN)/python training/best.py
	@$(BIN)/python generation/run.py
	@$(BIN)/python generation/measure.py
	@$(BIN)/python model_cards/run.py

# FROM=results continues from the runs measured there: only new runs and the best model are trained.
CPU := data/cpu
FROM :=
publish: $(READY)
	@$(BIN)/python preprocessing/run.py --output_dir $(CPU)/processed_music_data
	@$(BIN)/python preprocessing/run.py --output_dir $(CPU)/transposed_music_data --transpose all
	@$(BIN)/python training/run.py studies/cpu.yaml $(FROM:%=--reuse_runs %/runs.parquet)
	@$(BIN)/python analysis/run.py --runs $(CPU)/runs.parquet --study cpu --output_dir $(CPU)
	@$(BIN)/python training/best.py studies/cpu_best.yaml
	@$(BIN)/python generation/run.py --model $(CPU)/best_model --corpus $(CPU)/transposed_music_data
	@$(BIN)/python generation/measure.py --output_dir $(CPU) --corpus $(CPU)/processed_music_data --num_samples 200 \
		$(FROM:%=--reuse_quality %/generation_analysis/quality.json)
	@$(BIN)/python training/export.py studies/cpu.yaml --runs results/runs.parquet
	@$(BIN)/python training/export.py studies/gpu.yaml --runs results/runs.parquet
	@$(BIN)/python model_cards/publish.py --output_dir $(CPU) --publish_dir results
	@$(MAKE) --no-print-directory report

report: $(READY)
	@$(BIN)/python generation/measure.py --output_dir results
	@$(BIN)/python analysis/run.py --runs results/runs.parquet --study cpu --output_dir results
	@$(BIN)/python model_cards/readme.py --results results

SMOKE := data/smoke
smoke: $(READY)
	@$(BIN)/python preprocessing/run.py --output_dir $(SMOKE)/processed_music_data
	@$(BIN)/python training/run.py studies/smoke.yaml
	@$(BIN)/python analysis/run.py --runs $(SMOKE)/runs.parquet --output_dir $(SMOKE)
	@$(BIN)/python training/best.py studies/smoke_best.yaml
	@$(BIN)/python generation/run.py --model $(SMOKE)/best_model --corpus $(SMOKE)/processed_music_data \
		--num_samples 4 --max_characters 200
	@$(BIN)/python generation/measure.py --output_dir $(SMOKE) --corpus $(SMOKE)/processed_music_data \
		--num_samples 10 --temperatures 1.0
	@$(BIN)/python model_cards/run.py --output_dir $(SMOKE)

dashboard: $(READY)
	@TRACKIO_DIR=data/trackio $(BIN)/python -c 'import trackio; trackio.show(open_browser=False)'

demo: $(READY_DEMO)
	@$(BIN)/python model_cards/demo.py

test: $(READY_DEV)
	@$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal

test-long: $(READY_DEV)
	@$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal -m long

check: $(READY_DEV)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

clean:
	rm -rf .venv data build *.egg-info
