# Everything a user or a developer does. `make help` lists it.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help install demo run profile study smoke-test cost page figures publish docs dag test test-all nightly bench bench-gpu check format lab lock clean

# The first of these that is there; PYTHON=... takes another.
PYTHON ?= $(firstword $(foreach name,python3.11 python3.12 python3.13,$(shell command -v $(name))))
PROFILE ?= demo
FROM ?= demo
CORES ?= 2
# Jobs with an encoder wait for one; without any they share the processors.
GPUS ?= $(shell nvidia-smi -L 2>/dev/null | grep -c GPU)
BIN := .venv/bin
# PyTorch takes its memory in large pages: a seventh less time for training on the CPU of a virtual machine.
export THP_MEM_ALLOC_ENABLE ?= 1

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

install: .venv/installed ## create the environment in .venv (once: 4 minutes, 7 GB); then: source .venv/bin/activate

.venv/installed: requirements.lock pyproject.toml
	@[ -n "$(PYTHON)" ] || { echo "needs Python 3.11, 3.12 or 3.13; PYTHON=... says where one is" >&2; exit 1; }
	@echo "installing into .venv: once, about 4 minutes and 7 GB"
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --no-index -e .
	touch $@

demo: PROFILE = demo
demo: run ## molecules to figures in minutes, without network

run: .venv/installed ## run all notebooks of a profile (PROFILE=demo CORES=2)
	@[ -f params/$(PROFILE)/profile.yaml ] || { echo "unknown profile $(PROFILE); known are:" \
		$(patsubst params/%/profile.yaml,%,$(wildcard params/*/profile.yaml)) >&2; exit 1; }
	@mkdir -p runs/$(PROFILE)
	@flock --wait 10 --conflict-exit-code 75 runs/$(PROFILE)/.lock \
		$(BIN)/snakemake --cores $(CORES) --config profile=$(PROFILE) $(if $(STUDY),study=$(STUDY)) \
		--nolock --rerun-incomplete --quiet rules progress \
		$(if $(filter-out 0,$(GPUS)),--resources gpu=$(GPUS)) $(ARGS) \
		|| { status=$$?; [ $$status != 75 ] || echo "profile $(PROFILE) is running already, or is still stopping:" \
		"try again in a few seconds" >&2; exit $$status; }
	@echo "figures:            runs/$(PROFILE)/$(if $(STUDY),$(STUDY)/)figures/"
	@echo "executed notebooks: runs/$(PROFILE)/$(if $(STUDY),$(STUDY)/)notebooks/"

# The first profile that has it: paper, demo, or any other.
study: PROFILE = $(word 2,$(subst /, ,$(firstword $(wildcard $(patsubst %,params/%/study_$(NAME).yaml,paper demo *)) params/demo)))
study: STUDY = $(or $(NAME),$(error NAME=... says which study: $(patsubst study_%.yaml,%,$(sort $(notdir $(wildcard params/*/study_*.yaml))))))
study: run ## run a study (NAME=baseline; PROFILE=..., if several have one of this name)

smoke-test: PROFILE = paper
smoke-test: .venv/installed ## run a profile and its studies with a few steps each (PROFILE=paper; 90 minutes of processor time)
	$(BIN)/python -m moleclip.workflow.smoke_test $(PROFILE)
	@for study in "" $(patsubst params/$(PROFILE)/study_%.yaml,%,$(wildcard params/$(PROFILE)/study_*.yaml)); do \
		$(MAKE) --no-print-directory run PROFILE=smoke_test_$(PROFILE) STUDY=$$study \
			ARGS="$(ARGS) --set-threads pretrain_another=1 pretrain_domain=1" || exit; \
	done

cost: PROFILE = paper
cost: .venv/installed ## jobs, images and rough GPU hours of a profile and its studies (PROFILE=paper)
	$(BIN)/python -m moleclip.workflow.cost $(PROFILE)

page: ARGS = --forcerun draw
page: run ## draw the page of a profile or a study again, from its runs (PROFILE=demo, STUDY=...)

figures: PROFILE = paper
figures: STUDY = published
figures: page ## the paper's figures, tables and claims, from its released runs and ours (2 minutes)

publish: .venv/installed ## copy a finished page to figures/ (PROFILE=demo, STUDY=...; DIRTY=1: even if drawn by uncommitted code)
	$(BIN)/python -m moleclip.workflow.publish $(PROFILE) $(STUDY) $(if $(DIRTY),--dirty)

ship: .venv/installed ## make a pretrained encoder a built-in one (ENCODER=runs/laptop/encoder AS=lite)
	rm -rf runs/ship
	$(BIN)/moleclip export $(or $(ENCODER),runs/laptop/encoder) --out runs/ship
	chmod 644 runs/ship/*
	mv runs/ship/* moleclip/weights/$(or $(AS),lite)/

docs: .venv/installed ## build the documentation, with the executed notebooks of a profile, as a static site (PROFILE=demo)
	$(BIN)/sphinx-build -W --keep-going --quiet -D profile=$(PROFILE) docs docs/_build/html
	@echo "open docs/_build/html/index.html"

dag: .venv/installed ## which jobs `make run` would run, and why (PROFILE=demo, STUDY=...)
	@$(BIN)/snakemake --config profile=$(PROFILE) $(if $(STUDY),study=$(STUDY)) --nolock --dry-run --quiet host rules

# Two processes, with a thread each: more would only wait for each other.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/pytest -n $(CORES) --dist loadfile --no-loadscope-reorder

test: .venv/installed ## run the tests, except long ones that repeat others (7 to 16 minutes on 2 cores)
	$(PYTEST) -m "not long"

test-all: .venv/installed ## run all tests (half an hour on 2 cores)
	$(PYTEST)

nightly: .venv/installed ## test the readers with 10,000 cases of bad input (minutes)
	MOLECLIP_NIGHTLY=1 $(BIN)/pytest tests/test_bad_input.py

bench: .venv/installed ## time drawing, batches and labels (45 minutes on 2 cores); results in benchmarks/results/
	$(BIN)/python benchmarks/drawing.py
	$(BIN)/python benchmarks/batches.py
	rm -rf runs/benchmarks/labels
	$(BIN)/python benchmarks/labels.py
	$(BIN)/python benchmarks/train_step.py
	$(BIN)/python benchmarks/finetune.py
	$(BIN)/python benchmarks/embed.py

# Without an installation where there is none: PYTHON=... says which Python has PyTorch and the other packages.
bench-gpu: ## on a GPU: is it right, and how fast (at most 9 minutes; OUT=folder, ARGS=--small: each part on a CPU)
	$(firstword $(wildcard $(BIN)/python) $(PYTHON)) benchmarks/gpu.py $(if $(OUT),--out $(OUT)) $(ARGS)

check: .venv/installed ## check format, lint, types, order of imports, notebooks and lock file
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/nbstripout --verify --keep-id notebooks/*.ipynb
	$(BIN)/python -m moleclip.workflow.notebooks lint
	$(BIN)/python tests/check_lock.py

format: .venv/installed ## format code and notebooks
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/nbstripout --keep-id --extra-keys "metadata.papermill metadata.language_info.version" notebooks/*.ipynb

lab: .venv/installed ## open the notebooks in JupyterLab (ARGS="--no-browser --port 9000": options of JupyterLab)
	$(BIN)/jupyter lab --ServerApp.root_dir="$(CURDIR)" --LabApp.default_url=/lab/tree/notebooks/00_quickstart.ipynb \
		$(if $(filter 0,$(shell id -u)),--allow-root) $(ARGS)

profile: ## copy a profile under a new name (NAME=mine FROM=demo)
	@[ -n "$(NAME)" ] || { echo "NAME=... says how it is to be called" >&2; exit 1; }
	@[ -f params/$(FROM)/profile.yaml ] || { echo "there is no profile params/$(FROM)" >&2; exit 1; }
	@[ ! -e params/$(NAME) ] || { echo "params/$(NAME) is there already" >&2; exit 1; }
	@cp -r params/$(FROM) params/$(NAME)
	@sed -i.old -E 's#(runs|figures|params)/$(FROM)([^A-Za-z0-9_-]|$$)#\1/$(NAME)\2#g' params/$(NAME)/*.yaml
	@rm params/$(NAME)/*.old
	@echo "params/$(NAME): edit it, then: make run PROFILE=$(NAME)"

lock: .venv/installed ## renew requirements.lock from pyproject.toml
	$(BIN)/uv pip compile pyproject.toml --extra notebooks --extra dev --extra docs --universal --python-version 3.11 \
		--generate-hashes --no-annotate --no-header --upgrade --output-file requirements.lock

clean: ## remove all runs (not the environment, not the figures)
	rm -rf docs/_build docs/api docs/notebooks runs .snakemake params/smoke_test_*
