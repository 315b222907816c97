# `make study`, `make test` and `make docs` need nothing but Python 3.11. They work in an environment of their own.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STUDY ?= study
# "make test TESTS='-k overlap'" runs some of them
TESTS ?=
PYTEST = PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest -n logical --maxprocesses 8 --durations 15 $(TESTS)

.PHONY: study test test-all docs release lock lint types chromium bench lab readme pretrained clean
.DELETE_ON_ERROR:

# the versions that were tested, for every platform; "make study LOCK=" takes the newest that fit
LOCK ?= requirements/lock.txt
# uv where it is there, which is faster; "make study UV=" takes pip
UV ?= $(shell command -v uv)
# "make study TORCH=cpu" on Linux: PyTorch without CUDA, from an index that has it (TORCH_INDEX, or pip's or uv's own)
TORCH ?=
TORCH_INDEX ?=
LOCKED = --quiet $(if $(LOCK),--constraint $(LOCK))
# by pip where uv does not find the index that pip is told
install = $(if $(UV),$(UV) pip install --python $(BIN)/python $(LOCKED) $(1) $(if $(2),$(2) --index-strategy unsafe-best-match) || )\
	$(BIN)/python -m pip install --disable-pip-version-check $(LOCKED) $(1) $(2)
CPU_BUILDS = $(shell sed -n -E 's/^(torch|torchvision)(==[^ ]+).*/\1\2+cpu/p' requirements/lock.txt)
FROM_INDEX = $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
NO_CPU_BUILDS = TORCH=cpu: no index has $(CPU_BUILDS); name one with TORCH_INDEX=URL, or leave TORCH=cpu out

# installed again only when what is installed changes; a half-made environment has no stamp
$(VENV)/study.stamp: pyproject.toml $(LOCK)
	$(PYTHON) -m venv $(VENV)
	$(if $(filter cpu,$(TORCH)),$(call install,$(CPU_BUILDS),$(FROM_INDEX)) || { echo "$(NO_CPU_BUILDS)" >&2; exit 1; })
	$(call install,--editable '.[fftw]')
	touch $@

$(VENV)/dev.stamp: $(VENV)/study.stamp
	$(call install,--editable '.[dev]')
	# its product reader is tested against ours, and needs nothing of the sixty packages that the rest of it needs
	$(call install,--no-deps 'ptychodus==1.7.*')
	touch $@

## requirements/lock.txt anew, with as few changes as pyproject.toml asks for; "make lock UPGRADE=--upgrade" takes the newest
lock:
	$(or $(UV),uv) pip compile pyproject.toml --all-extras --universal --python-version 3.11 --no-header --no-annotate \
		$(UPGRADE) --quiet --output-file requirements/lock.txt

## the quick study on the built-in base; ends with the headline table and the report's place
study: $(VENV)/study.stamp
	$(BIN)/fly64 run $(STUDY) --profile quick

## lint, types, and every test that is not marked slow, on all cores: the notebooks' own, and what no notebook can show
test: lint types chromium
	$(PYTEST) -m "not slow and not slurm"

## the same with the tests that take minutes
test-all: lint types chromium
	$(PYTEST)

## what is wrong with the notebooks and the scripts, and what ruff would format
lint: $(VENV)/dev.stamp
	$(BIN)/ruff check nbs tests benchmarks
	$(BIN)/ruff format --check nbs tests benchmarks

## the package's types; a second run takes a second
types: $(VENV)/dev.stamp
	$(BIN)/mypy

# some tests drive a browser; where there is none, Debian's is installed if that may be done
chromium:
	@for name in chromium chromium-browser google-chrome; do command -v $$name > /dev/null && exit 0; done; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y chromium > /dev/null; \
	fi; \
	command -v chromium > /dev/null || echo "no Chromium here (apt-get install chromium): the tests in a browser will be skipped"

## the documentation as a website without a study: _docs/index.html
docs: $(VENV)/study.stamp
	$(BIN)/python -c "from fly64_nb.show.docs import write_docs; print(write_docs('_docs'), 'pages: _docs/index.html')"

## "make release VERSION=0.2.0": the version, its entry in the changelog, a commit, a tag, and wheel and sdist in dist/
release: $(VENV)/dev.stamp
	@printf '%s' "$(VERSION)" | grep -Eqx '[0-9]+\.[0-9]+\.[0-9]+' || { echo "VERSION: found '$(VERSION)'; needed is one such as 0.2.0" >&2; exit 2; }
	@test -z "$$(git status --porcelain)" || { echo "there are changes that are not committed" >&2; exit 2; }
	sed -i 's/^version = .*/version = $(VERSION)/' settings.ini
	sed -i 's/^## Unreleased$$/## Unreleased\n\n## $(VERSION), '"$$(date +%Y-%m-%d)"'/' CHANGELOG.md
	$(BIN)/nbdev_export
	git commit --quiet --all --message "Release $(VERSION)"
	git tag "v$(VERSION)"
	rm -rf build dist
	$(BIN)/python -m build --no-isolation --outdir dist . > /dev/null
	@echo "tagged v$(VERSION); dist/ has what to upload: git push --tags, then twine upload dist/*"

## every benchmark in one table; BENCH="--full", "--gpu", "--only training", "--output table.md" go to the suite
bench: $(VENV)/dev.stamp
	$(BIN)/python benchmarks/suite.py $(BENCH)

## JupyterLab on the phase notebooks
lab: $(VENV)/dev.stamp
	$(BIN)/jupyter lab --notebook-dir . --LabApp.default_url=/lab/tree/nbs

## README.md from its notebook
readme:
	$(BIN)/python -m jupyter nbconvert --log-level ERROR --to markdown --output-dir . --output README nbs/index.ipynb
	sed -i.bak 's#](images/#](nbs/images/#' README.md && rm README.md.bak

## the checkpoint of the built-in probe that comes with the package, and its evidence: ten CPU-minutes
pretrained: $(VENV)/study.stamp
	$(BIN)/python -c "from fly64_nb.methods.networks.shipped import make_shipped; print(make_shipped())"

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
