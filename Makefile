# make study   the quick study, end to end        make test    the tests
# make smoke   the same path on a tiny grid       make test-long   the tests that take longer
# make check   lint, format and types
# make report  all that results/ says, from the table of its runs and the scores of its tunes
# make publish the study of results/ (hours), then what was measured to results/ and its report
# make dashboard   the curves of the runs in a browser, while they are trained
# make demo    the study's models side by side in a browser

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
	@$(BIN)/python training/run.py studies/quick.yaml --part best
	@$(BIN)/python generation/run.py
	@$(BIN)/python generation/run.py --part quality
	@$(BIN)/python model_cards/run.py

# FROM=results goes on from what was measured there: runs that ended are not trained again, only new ones and the best model.
CPU := data/cpu
FROM :=
publish: $(READY)
	@$(BIN)/python preprocessing/run.py --output_dir $(CPU)/processed_music_data
	@$(BIN)/python preprocessing/run.py --output_dir $(CPU)/transposed_music_data --transpose all
	@$(BIN)/python training/run.py studies/cpu.yaml $(FROM:%=--records_from %/runs.parquet)
	@$(BIN)/python analysis/run.py --output_root $(CPU) --also $(CPU)/transposed
	@$(BIN)/python generation/run.py --model $(CPU)/best_model --corpus $(CPU)/transposed_music_data
	@$(BIN)/python generation/run.py --part quality --output_root $(CPU) --corpus $(CPU)/processed_music_data --samples 200 \
		$(FROM:%=--measured_in %/quality.json)
	@$(BIN)/python generation/run.py --part selection --output_root $(CPU) --corpus $(CPU)/processed_music_data \
		--out results/samples
	@$(BIN)/python training/run.py studies/cpu.yaml --runs_file results/runs.parquet
	@$(BIN)/python training/run.py studies/gpu.yaml --runs_file results/runs.parquet
	@$(BIN)/python model_cards/run.py --output_root $(CPU) --publish results
	@$(MAKE) --no-print-directory report

report: $(READY)
	@$(BIN)/python generation/run.py --part quality_report --out results
	@$(BIN)/python analysis/run.py --runs results/runs.parquet --out results
	@$(BIN)/python model_cards/run.py --findings results

SMOKE := data/smoke
smoke: $(READY)
	@$(BIN)/python preprocessing/run.py --output_dir $(SMOKE)/processed_music_data
	@$(BIN)/python training/run.py studies/smoke.yaml
	@$(BIN)/python analysis/run.py --output_root $(SMOKE)
	@$(BIN)/python training/run.py studies/smoke.yaml --part best
	@$(BIN)/python generation/run.py --model $(SMOKE)/best_model --corpus $(SMOKE)/processed_music_data \
		--n 4 --max_characters 200
	@$(BIN)/python generation/run.py --part quality --output_root $(SMOKE) --corpus $(SMOKE)/processed_music_data \
		--samples 10 --temperatures 1.0
	@$(BIN)/python model_cards/run.py --output_root $(SMOKE)

dashboard: $(READY)
	@TRACKIO_DIR=data/trackio $(BIN)/python -c 'import trackio; trackio.show(open_browser=False)'

demo: $(READY_DEMO)
	@$(BIN)/python model_cards/run.py --demo

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
