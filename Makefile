# One word a task. PYTHON needs to be 3.11 to 3.13; all else is installed into .venv.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# Bytecode is written whatever the environment says: tests start hundreds of processes, each of which would compile again.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test quick coverage versions versions-short fuzz examples check pictures bench bench-quick docs dist lock clean

$(VENV)/.made:
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet "pip>=25.1"
	touch $@

$(VENV)/.run: $(VENV)/.made pyproject.toml constraints.txt
	$(PIP) install --quiet --constraint constraints.txt --editable .
	$(BIN)/python -m lungmix.kernels.compile
	touch $@

$(VENV)/.test: $(VENV)/.run
	$(PIP) install --quiet --constraint constraints.txt --group test --group docs
	touch $@

# The tests that look through a browser take Debian's.
$(VENV)/.browser: scripts/browser.sh scripts/debian.sh $(VENV)/.made
	scripts/browser.sh
	touch $@

$(VENV)/.check: $(VENV)/.run
	$(PIP) install --quiet --constraint constraints.txt --group check
	touch $@

$(VENV)/.dicom: scripts/dicom.sh scripts/debian.sh $(VENV)/.made
	scripts/dicom.sh
	touch $@

$(VENV)/.orthanc: scripts/orthanc.sh scripts/debian.sh $(VENV)/.made
	scripts/orthanc.sh
	touch $@

# The program that reads our batches, built from its last release.
$(VENV)/.pyradiomics: scripts/pyradiomics.sh $(VENV)/.made
	scripts/pyradiomics.sh $(BIN)/python $(VENV)/pyradiomics
	touch $@

# lungmask, MONAI, TorchIO and PyTorch; where these cannot be had, the tests marked lungmask are left out.
$(VENV)/.lungmask: scripts/lungmask.sh $(VENV)/.test
	scripts/lungmask.sh $(BIN)/python $(VENV)/lungmask
	[ ! -e $(VENV)/lungmask/complete ] || touch $@

$(VENV)/.slurm: scripts/slurm.sh scripts/debian.sh $(VENV)/.made
	scripts/slurm.sh install
	touch $@

$(VENV)/.ssh: scripts/ssh.sh scripts/debian.sh $(VENV)/.made
	scripts/ssh.sh
	touch $@

$(VENV)/.versions: $(VENV)/.run
	$(PIP) install --quiet --constraint constraints.txt --group versions
	touch $@

# What the operator of dask-kubernetes accepts.
$(VENV)/.kubernetes: scripts/kubernetes.sh $(VENV)/.made
	scripts/kubernetes.sh $(BIN)/python $(VENV)/dask-kubernetes
	touch $@

$(VENV)/.bench: $(VENV)/.run
	$(PIP) install --quiet --constraint constraints.txt --group bench
	touch $@

demo: $(VENV)/.run  ## Run the main job on a small phantom cohort; ends with a page to look at.
	$(BIN)/python -m lungmix.phantom demo/scans --scans 3 --format mixed
	$(BIN)/lungmix run demo/cohort.zarr demo/scans --report demo/page
	@echo "Open demo/page/index.html in a browser."

PROGRAMS := $(addprefix $(VENV)/,.browser .dicom .orthanc .slurm .ssh .kubernetes .pyradiomics .lungmask)
JOBS ?= 2
# A mark whose tests are left out: WITHOUT=real where there is no real CT.
WITHOUT ?=
# The tests of lungmask, where it could be installed.
OPTIONAL = $$([ -e $(VENV)/lungmask/complete ] && echo "(lungmask or not lungmask)" || echo "not lungmask")
WANTED = $(if $(WITHOUT), and not $(WITHOUT)) and $(OPTIONAL)
test: $(VENV)/.test $(PROGRAMS)  ## All tests, on JOBS processes at a time.
	$(BIN)/python -m pytest -m "$(if $(WITHOUT),not $(WITHOUT) and )$(OPTIONAL)" --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder --durations 20

quick: $(VENV)/.test $(VENV)/.dicom $(VENV)/.orthanc $(VENV)/.pyradiomics $(VENV)/.lungmask  ## The tests that take seconds.
	$(BIN)/python -m pytest -m "not slow$(WANTED)"

coverage: $(VENV)/.test $(VENV)/.dicom $(VENV)/.orthanc $(VENV)/.pyradiomics $(VENV)/.lungmask  ## The quick tests, and which lines they run; pyproject.toml has the floor.
	$(BIN)/python -m pytest -m "not slow$(WANTED)" --cov --cov-report term:skip-covered --cov-report xml --durations 20

versions: $(VENV)/.versions $(VENV)/.dicom $(VENV)/.orthanc $(VENV)/.pyradiomics  ## The quick tests on the lowest and the newest versions.
	$(BIN)/python scripts/versions.py quick $(if $(WITHOUT),--without $(WITHOUT))

versions-short: $(VENV)/.versions  ## One phantom on the lowest and the newest versions.
	$(BIN)/python scripts/versions.py phantom

fuzz: $(VENV)/.test  ## Changed files of every format, new ones every time: EXAMPLES of each, 5,000 unless given.
	LUNGMIX_FUZZ=$(or $(EXAMPLES),5000) $(BIN)/python -m pytest tests/hostile/test_fuzz.py --timeout 0

TIMES ?= 10
examples: $(VENV)/.test $(VENV)/.dicom $(VENV)/.orthanc $(VENV)/.pyradiomics  ## The quick tests with TIMES as many examples, new ones every time.
	LUNGMIX_EXAMPLES=$(TIMES) $(BIN)/python -m pytest -m "not slow$(WANTED)" --timeout 0

check: $(VENV)/.check  ## Lint, format, types, docs.
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/mypy --config-file benchmarks/mypy.ini
	$(BIN)/sphinx-build -q -W -b html docs docs/_build/html

docs: $(VENV)/.check
	$(BIN)/sphinx-build -b html docs docs/_build/html

PICTURES := docs/_build/pictures
pictures: $(VENV)/.test $(VENV)/.browser  ## The docs' pictures of phantoms, anew.
	$(BIN)/python -m lungmix.phantom $(PICTURES)/scans --scans 8 --shape 160 256 256 --spacing 1.4 1.4 1.9 --format dicom
	$(BIN)/lungmix run $(PICTURES)/cohort.zarr $(PICTURES)/scans --preset physical --fit paper
	$(BIN)/lungmix report $(PICTURES)/cohort.zarr $(PICTURES)/page --scores $(PICTURES)/scans/scores.csv
	$(BIN)/python -m lungmix.phantom $(PICTURES)/followup --scans 2 --followups 2 --shape 160 256 256 --spacing 1.4 1.4 1.9
	$(BIN)/lungmix run $(PICTURES)/followup.zarr $(PICTURES)/followup --model published --zones volume
	$(BIN)/lungmix followup $(PICTURES)/followup.zarr --patients $(PICTURES)/followup/patients.csv --register deformable \
		--report $(PICTURES)/followup-page
	$(BIN)/python docs/pictures.py $(PICTURES)/cohort.zarr $(PICTURES)/page $(PICTURES)/followup-page/patients/patient-002.html
	$(BIN)/python -m lungmix.phantom $(PICTURES)/tutorial --scans 3 --format dicom
	$(BIN)/lungmix run $(PICTURES)/tutorial.zarr $(PICTURES)/tutorial --model published
	$(BIN)/python docs/tutorial_figure.py $(PICTURES)/tutorial.zarr docs/pictures/tutorial.png

bench: $(VENV)/.bench  ## Ratios, peaks of memory and growth in one run, into docs/performance; kernels by asv.
	$(BIN)/python benchmarks/run.py
	$(BIN)/python benchmarks/mixture.py
	$(BIN)/python benchmarks/cohort_fit.py
	$(BIN)/python benchmarks/fits_of_simulated_cohorts.py
	$(BIN)/python benchmarks/strata_of_kernels.py
	$(BIN)/asv machine --config benchmarks/asv.conf.json --yes
	$(BIN)/asv run --config benchmarks/asv.conf.json --python=same --quick --show-stderr

bench-quick: $(VENV)/.bench  ## The same on small scans: shows that all runs.
	$(BIN)/python benchmarks/run.py --quick

$(VENV)/.release: $(VENV)/.made pyproject.toml constraints.txt
	$(PIP) install --quiet --constraint constraints.txt --group release
	touch $@

dist: $(VENV)/.release  ## The source archive and the wheel, of the version that the tags say.
	$(BIN)/python -m build

lock: $(VENV)/.versions  ## Renew constraints.txt.
	$(BIN)/uv pip compile pyproject.toml --universal --extra dashboard --extra notebook --group test --group check --group bench --group pyradiomics --group versions --group release \
		--python-version 3.11 --no-annotate --no-header --upgrade --quiet --output-file constraints.txt

clean:
	rm -rf $(VENV) .venv-lowest-* .venv-newest-* demo dist docs/_build docs/commands
