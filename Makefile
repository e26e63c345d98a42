# The habits of this project. `make run` and `make test` need nothing but Python 3.10 or newer: the first call brings up
# a virtual environment. ARGS goes through, as in `make run ARGS="--preset seed"`.

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
WORKERS ?= 2

.PHONY: environment run test test-long lint docs dist bench bench-full guard lottery results notebook kernels model gpu tune build/sanitized sanitize fuzz clang unchanged sweeps build/races sanitize-threads fuzz-files fuzz-operators long-runs faults clean

environment: $(VENV)/ready

run: $(VENV)/ready
	$(VENV)/bin/python -m lth_sparse.run $(ARGS)

# Two runs: what can share the machine, by WORKERS processes, then the tests marked `alone`, one by one. A file stays in one
# process, whose fixtures it shares. Each process has as many threads as without the others; threads that wait must not
# spin, or they would keep the others from working.
# ARGS may select nothing for one of the runs (pytest's exit status 5), but not for both.
test: $(VENV)/ready
	@OMP_WAIT_POLICY=passive $(VENV)/bin/python -m pytest -m "not alone and not long" -n $(WORKERS) --dist loadfile $(ARGS); together=$$?; \
	$(VENV)/bin/python -m pytest -m "alone and not long" $(ARGS); alone=$$?; \
	if [ $$alone = 5 ]; then exit $$together; fi; \
	if [ $$together != 0 ] && [ $$together != 5 ]; then exit $$together; fi; \
	exit $$alone

# The tests marked `long`: whole builds by clang, under a sanitizer and from a source distribution, a Ray cluster, Triton's interpreter.
test-long: $(VENV)/ready
	OMP_WAIT_POLICY=passive $(VENV)/bin/python -m pytest -m long $(ARGS)

SCHEMA := $(VENV)/bin/check-jsonschema --builtin-schema

lint: $(VENV)/ready
	$(SCHEMA) vendor.citation-file-format CITATION.cff
	$(SCHEMA) vendor.github-workflows .github/workflows/*.yml
	$(SCHEMA) vendor.github-issue-forms .github/ISSUE_TEMPLATE/bug.yml .github/ISSUE_TEMPLATE/feature.yml
	$(SCHEMA) vendor.github-issue-config .github/ISSUE_TEMPLATE/config.yml
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

# The site, in build/docs. Whatever Sphinx warns of fails it, a link that leads nowhere among them.
docs: $(VENV)/ready-docs
	$(VENV)/bin/sphinx-build --fail-on-warning --keep-going --nitpicky --quiet docs build/docs $(ARGS)

bench: $(VENV)/ready
	$(VENV)/bin/python -m pytest bench/ --benchmark-only $(ARGS)

bench-full: $(VENV)/ready
	$(VENV)/bin/python -m pytest bench/ --benchmark-only --full --results bench/results $(ARGS)

# Ratios against the committed ones of such a machine; where there are none it only reports.
guard: $(VENV)/ready
	$(VENV)/bin/python -m bench.guard

# Whole lotteries under auto against masked dense PyTorch, pruned as open_lth prunes: played on CIFAR-10 made smaller, and
# worked out of measured steps at full size. Images are those that `docs/results/README.md` says how to unpack.
IMAGES ?= $(HOME)/.cache/cifar10-jpeg
LOTTERY := $(VENV)/bin/python -m bench.lottery --dataset folder --data-dir $(IMAGES)
PLAYED := --image-size 16 --iterations 500 --evaluate-every 250 --test-images 2000
CONV4 := --preset paper/conv4
RESNET20 := --preset openlth/resnet20
VGG16 := --preset openlth/vgg16 --output-rate 0

lottery: $(VENV)/ready
	$(LOTTERY) $(CONV4) $(PLAYED) $(ARGS)
	$(LOTTERY) $(RESNET20) $(PLAYED) --rewind-iteration 50 $(ARGS)
	$(LOTTERY) $(VGG16) $(PLAYED) --rewind-iteration 50 --batch-size 32 $(ARGS)
	$(LOTTERY) $(CONV4) --extrapolate $(ARGS)
	$(LOTTERY) $(RESNET20) --extrapolate $(ARGS)
	$(LOTTERY) $(VGG16) --extrapolate $(ARGS)

# docs/results/README.md, its charts and the figures of README.md and docs/*.md, of the files that bench and the lotteries
# left.
results: $(VENV)/ready
	$(VENV)/bin/python -m bench.page

# notebooks/first_ticket.py with its outputs, to be opened in Jupyter or an editor.
notebook: $(VENV)/ready
	mkdir -p build
	$(VENV)/bin/jupytext --quiet --to ipynb --output build/first_ticket.ipynb notebooks/first_ticket.py
	$(VENV)/bin/jupyter-execute --inplace build/first_ticket.ipynb

# What the compilers make of the Triton and CUDA kernels, and what an H200 could make of them: neither needs a GPU.
kernels model: export TRITON_INTERPRET =

kernels: $(VENV)/ready
	$(VENV)/bin/python -m bench.compiled_kernels $(ARGS)
	$(VENV)/bin/python -m bench.cuda_kernels

model: $(VENV)/ready
	$(VENV)/bin/python -m bench.cost_model $(ARGS)

# On a machine with a GPU, which may have no network: with its own Python, and what is installed there.
gpu:
	$(PYTHON) -m bench.gpu $(ARGS)

tune:
	$(PYTHON) -m bench.tune $(ARGS)

KERNEL_TESTS ?= tests/csrc/test_cpp_kernels.py tests/csrc/test_dense_weight.py tests/csrc/test_layers.py \
  tests/backends/test_backends.py tests/hostile/test_operators.py

# The C++ kernels under AddressSanitizer and UndefinedBehaviorSanitizer, in a copy of the tree. PyTorch itself is not
# instrumented: its leaks are not ours to report, and the runtime has to be there before it. setuptools compiles C++ with
# CXXFLAGS, and did with CFLAGS; planted faults, in this build alone, prove that the flags arrived. -O1: with more, what the
# sanitizers add to loops that are inlined takes minutes a file. A report ends the process: pytest must not keep it to
# itself. What is too large to be allocated is an exception, as elsewhere.
SANITIZE := -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -g
SANITIZED := LD_PRELOAD="$$($${CXX:-c++} -print-file-name=libasan.so) $$($${CXX:-c++} -print-file-name=libubsan.so)" \
  ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 LTH_SPARSE_SANITIZED=1 $(abspath $(VENV))/bin/python -m pytest -p no:cacheprovider --capture=sys

build/sanitized: $(VENV)/ready
	rm -rf $@ && mkdir -p $@
	git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents -t $@
	cp tests/csrc/planted_faults.cpp $@/csrc
	sed -i 's/"-O3"/"-O1"/' $@/setup.py
	cd $@ && CFLAGS="$(SANITIZE)" CXXFLAGS="$(SANITIZE)" LDFLAGS="$(SANITIZE)" LTH_SPARSE_CUDA=0 \
	  $(abspath $(VENV))/bin/python setup.py --quiet build_ext --inplace

sanitize: build/sanitized
	cd build/sanitized && $(SANITIZED) tests/csrc/test_sanitizers.py $(KERNEL_TESTS) $(ARGS)

# The C++ kernels under ThreadSanitizer, on threads of the standard library: the barriers of PyTorch's OpenMP are not instrumented,
# so that all that they order would be reported.
build/races:
	rm -rf $@ && mkdir -p $@
	printf '%s\n' csrc/cpu/*.cpp csrc/cpu/*/*.cpp tests/csrc/races/races.cpp | xargs -P $(WORKERS) -I FILE sh -c \
	  '$${CXX:-c++} -std=c++20 -O1 -g -fsanitize=thread -I csrc -I tests/csrc/races -c FILE -o $@/$$(echo FILE | tr / -).o'
	$${CXX:-c++} -fsanitize=thread $@/*.o -o $@/races

sanitize-threads: build/races $(VENV)/ready
	LTH_SPARSE_RACES=$(abspath build/races/races) $(VENV)/bin/python -m pytest tests/csrc/test_races.py $(ARGS)

# Hostile files, and hostile arguments under the sanitizers, EXAMPLES of each kind; of operators ten calls an example. The short
# form is part of `make test`.
EXAMPLES ?= 100000
FUZZ := LTH_SPARSE_EXAMPLES=$(EXAMPLES)

fuzz: fuzz-files fuzz-operators

fuzz-files: $(VENV)/ready
	$(FUZZ) $(VENV)/bin/python -m pytest tests/hostile/test_tickets.py tests/hostile/test_states.py $(ARGS)

fuzz-operators: build/sanitized
	cd build/sanitized && $(FUZZ) $(SANITIZED) tests/csrc/test_sanitizers.py tests/hostile/test_operators.py $(ARGS)

# Whether memory stays flat over 20,000 steps and 50 repackings, by every kind of kernels and optimizer: a quarter of an
# hour. The short form is part of `make test`.
long-runs: $(VENV)/ready
	OMP_WAIT_POLICY=passive $(VENV)/bin/python -m tests.long_runs $(ARGS)

# Runs that are killed, stopped, cut off from power or out of disk, FAULTS of each kind, other ones each time; a seed that is
# shown, LTH_SPARSE_SEED, makes the same ones again. The short form is part of `make test`.
FAULTS ?= 100

faults: $(VENV)/ready
	LTH_SPARSE_FAULTS=$(FAULTS) OMP_WAIT_POLICY=passive $(VENV)/bin/python -m pytest -s tests/faults $(ARGS)

# The C++ kernels as clang builds them, in a copy of the tree too. CLANG=clang++-19 for another one.
CLANG ?= clang++

clang: $(VENV)/ready
	rm -rf build/clang && mkdir -p build/clang
	git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents -t build/clang
	cd build/clang && CXX="$(CLANG)" LTH_SPARSE_CUDA=0 $(abspath $(VENV))/bin/python setup.py --quiet build_ext --inplace
	cd build/clang && $(abspath $(VENV))/bin/python -m pytest -p no:cacheprovider $(KERNEL_TESTS) $(ARGS)

# A source distribution, and the wheel that is built from it against the PyTorch of the environment.
dist: $(VENV)/ready
	rm -rf dist
	$(VENV)/bin/python -m build --no-isolation $(ARGS)
	$(VENV)/bin/python -m twine check --strict dist/*

# After a refactoring: the same runs with the code of the revision BASE (by default where this branch left main) and with
# that of the working tree, whole, killed and resumed, leave the same bytes. ARGS="--images DIR" for real images.
BASE ?=

unchanged: $(VENV)/ready
	$(VENV)/bin/python -m tests.unchanged $(if $(BASE),--base $(BASE)) $(ARGS)

# A sweep whose jobs, and now and then itself, are killed at random, beside the same one without kills.
sweeps: $(VENV)/ready
	$(VENV)/bin/python -m tests.experiments.killed_at_random $(ARGS)

# Requirements first: with them in place, setup.py can build csrc/ against the very torch that will load it.
$(VENV)/ready: requirements.txt requirements-dev.txt setup.py pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet -r requirements.txt -r requirements-dev.txt
	$(VENV)/bin/python -m pip install --quiet --no-build-isolation -e .
	touch $@

$(VENV)/ready-docs: $(VENV)/ready requirements-docs.txt
	$(VENV)/bin/python -m pip install --quiet -r requirements-docs.txt
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info
