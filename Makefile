# `make demo` and `make test` work on a fresh machine with Python >= 3.10, a C++ compiler and git.

PYTHON ?= python3
VENV ?= .venv
BUNDLE := bundles/all-MiniLM-L6-v2
INT8_BUNDLE := bundles/int8/all-MiniLM-L6-v2
DEVICE_CODE := engine/device/bitheads.fatbin
# Options of `python -m benchmarks gpu` in `make test-gpu`, such as --roberta-large or --quick.
GPU_BENCHMARK ?=

RUN := $(VENV)/bin/python
# Which tests: CONTRIBUTING.md says what makes one a long one.
MARKED ?= not long
ONLY_LONG := $(if $(filter not,$(MARKED)),,yes)
PYTEST = $(RUN) -m pytest -m '$(MARKED)' $(if $(ONLY_LONG),--junitxml=build/long/$@.xml)
KERNELS := $(shell find kernels -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh')
SOURCES := $(filter %.cpp %.h,$(KERNELS)) CMakeLists.txt pyproject.toml constraints.txt
# An editable install knows each module by its name, not those that come later: it is made again
# when there are others than before.
MODULES := build/modules
$(shell mkdir -p build; find bitheads engine export training -name '*.py' | sort >$(MODULES).new; \
  cmp -s $(MODULES).new $(MODULES) || cp $(MODULES).new $(MODULES); rm -f $(MODULES).new)
CPP := $(shell find host kernels tests/cuda tests/device tests/host tests/kernels -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh' -o -name '*.hpp' -o -name '*.c')

# Holds for the build's own environment, too.
export PIP_CONSTRAINT := $(CURDIR)/constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1

AUDIT := build/audit

.PHONY: demo test test-engine test-export test-long test-gpu check tidy docs audit lock sanitize host ray readers wheel platforms device device-code plans software-device bench format clean help

help: ## this list
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 18

demo: $(BUNDLE)/bundle.json ## one encoder pass over real texts, many tasks
	$(RUN) -m bitheads predict --bundle $(BUNDLE) --demo

test: test-engine test-export ## all tests

# In two, so that `make -j2` can run them at the same time.
FARTHER_TESTS := tests/benchmarks tests/export tests/training
test-export: $(VENV)/.dev
	$(PYTEST) $(FARTHER_TESTS)

# One after another, and all of them, whatever fails.
test-long: $(VENV)/.dev ## the tests marked long, of `make test`, host, ray, readers, wheel and device; stores the outcome
	rm -rf build/long
	$(MAKE) --keep-going MARKED=long test-engine test-export host ray readers wheel platforms device-code plans software-device
	$(RUN) tests/long_run.py build/long

test-engine: $(VENV)/.dev
	$(PYTEST) $(addprefix --ignore=,tests/host tests/platforms tests/ray tests/readers tests/wheel $(FARTHER_TESTS))

check: $(VENV)/.dev tidy ## formatting, lint, types
	$(RUN) -m ruff format --check .
	$(RUN) -m ruff check .
	$(RUN) -m mypy
	$(RUN) -m mypy --platform darwin --cache-dir build/mypy-darwin -p bitheads.engine
	$(VENV)/bin/clang-format --dry-run --Werror $(CPP)
	$(RUN) -m benchmarks tables --check

# Not --quiet, which would leave the warnings out that strict makes errors.
docs: $(VENV)/.docs ## the site of all pages and of the Python reference, in build/site
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict

# The host's sources would need headers that pip does not have, ARM's those of its compiler: .clang-tidy is theirs,
# too, in an editor.
tidy: $(VENV)/.dev ## names, braces and bugs of the kernels' C++
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" cmake -S . -B build/tidy -G Ninja -DCMAKE_EXPORT_COMPILE_COMMANDS=ON \
	  -DPython_EXECUTABLE=$(CURDIR)/$(RUN) >build/tidy.log
	find kernels -name '*.cpp' ! -name '*_neon*' | xargs -P 2 -n 4 $(VENV)/bin/clang-tidy -p build/tidy --quiet

# Strict: a version that the index's service does not know is an error, not a package without faults.
audit: $(AUDIT)/bin/pip-audit ## known vulnerabilities of constraints.txt; needs the package index itself
	$< --strict --no-deps --disable-pip -r constraints.txt

lock: $(AUDIT)/bin/pip-compile ## build/requirements.lock: what a server needs, with hashes, for releases
	$< --quiet --generate-hashes --strip-extras --no-emit-index-url --no-emit-find-links --no-emit-trusted-host \
	  --extra grpc --constraint constraints.txt --output-file build/requirements.lock pyproject.toml

$(AUDIT)/bin/pip-audit $(AUDIT)/bin/pip-compile:
	$(PYTHON) -m venv $(AUDIT)
	env -u PIP_CONSTRAINT $(AUDIT)/bin/python -m pip install --quiet pip-audit pip-tools
	touch $(AUDIT)/bin/pip-audit $(AUDIT)/bin/pip-compile

sanitize: $(VENV)/.dev ## kernel tests under the address, undefined-behaviour and thread sanitizers
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" tests/kernels/sanitize.sh build/sanitize -DBITHEADS_VNNI_OF_AVX512=ON
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" TESTS=tests/kernels/test_dispatch.py \
	  tests/kernels/sanitize.sh build/sanitize-portable -DBITHEADS_SIMD=OFF
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" SANITIZE=thread TESTS=tests/kernels/test_predict_heads_threads.py \
	  tests/kernels/sanitize.sh build/sanitize-thread

# Apart from `make test`, because it needs headers that pip does not have:
# apt-get install libssl-dev nlohmann-json3-dev libcpp-httplib-dev pkg-config
# Its tests on a device are software-device's.
host: $(VENV)/.dev build/headers ## build the C++ library, its plugins and examples, and test them
	$(PYTEST) tests/host --ignore=tests/host/device

# Of ONNX Runtime, TensorRT and CUDA: what its plugins are compiled with.
build/headers: tests/host/plugin_headers.py tests/host/plugin_headers.txt | $(VENV)/.dev
	$(RUN) $<
	touch $@

# Apart from `make test`, because a cluster takes long to start.
ray: $(VENV)/.dev ## both jobs over a store on a Ray cluster of this machine, workers killed
	$(PYTEST) tests/ray

# Apart from `make test`, because of what it installs. Spark's test is a long one: it is another 400 MB, and
# Java's runtime is a package of the system (openjdk-17-jre-headless).
readers: $(VENV)/.readers $(if $(ONLY_LONG),$(VENV)/.spark) ## DuckDB, Iceberg and Spark read stores; FAISS and USearch search in them
	$(PYTEST) tests/readers tests/benchmarks/search

# Apart from `make test`, because it builds everything twice more and makes an environment.
wheel: $(VENV)/.dev ## build the wheel and the source distribution, install it, use it
	$(PYTEST) tests/wheel

# Zig is a compiler with the headers of other systems, of 100 MB.
platforms: $(VENV)/.dev ## compile the kernels for macOS and Windows, the C++ library for macOS and ARM
	$(RUN) -m pip install --quiet --progress-bar off ziglang
	$(PYTEST) tests/platforms

# `make -j2 device` builds pycuda while the compiler's and TensorRT's tests run.
device: device-code plans software-device ## all of CUDA and TensorRT that needs no GPU

device-code: $(VENV)/.device ## compile the CUDA kernels, look at what the compiler made of them
	$(RUN) -m bitheads device-code
	$(PYTEST) tests/cuda/test_device_code.py

plans: $(VENV)/.device ## build TensorRT-RTX plans and look at them
	$(PYTEST) tests/export/plans

# Under the sanitizers OpenVINO cannot be loaded, which checks quantized graphs as they are built.
software-device: $(VENV)/.pycuda build/headers ## the GPU's runtimes, through pycuda and in C++ (system packages: see host), on a device in software
	$(PYTEST) tests/device tests/host/device
	$(if $(ONLY_LONG),,PATH="$(CURDIR)/$(VENV)/bin:$$PATH" tests/device/sanitize.sh \
	  -k 'not every_kind and not quantized_graph_runs and not test_gpu_tests')

# The tests build a plan of their own; the benchmarks build one into the bundle if none there fits.
test-gpu: $(VENV)/.gpu $(DEVICE_CODE) $(BUNDLE)/bundle.json ## on a machine with a GPU: its tests, then every measurement, one report
	BITHEADS_REQUIRE_GPU=1 $(RUN) -m pytest -m gpu tests/gpu
	$(RUN) -m benchmarks gpu $(GPU_BENCHMARK)

bench: $(VENV)/.bench $(BUNDLE)/bundle.json $(INT8_BUNDLE)/bundle.json ## the benchmarks that need no data of yours
	$(RUN) -m benchmarks pack
	$(RUN) -m benchmarks parity --bundle $(INT8_BUNDLE)
	$(RUN) -m benchmarks heads
	$(RUN) -m benchmarks tasks
	$(RUN) -m benchmarks storage
	$(RUN) -m benchmarks latency
	$(RUN) -m benchmarks memory
	$(RUN) -m benchmarks encoder --bundle $(INT8_BUNDLE)

format: $(VENV)/.dev ## rewrite sources in the house format
	$(RUN) -m ruff format .
	$(RUN) -m ruff check --fix .
	$(VENV)/bin/clang-format -i $(CPP)

clean: ## forget everything that was made
	rm -rf $(VENV) build bundles engine/device/bitheads.*

$(BUNDLE)/bundle.json: | $(VENV)/.demo
	$(RUN) -m export.build --precision fp16 --output $(BUNDLE)

$(INT8_BUNDLE)/bundle.json: | $(VENV)/.bench
	$(RUN) -m export.build --precision int8 --output $(INT8_BUNDLE)

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "error: $(PYTHON) is older than 3.10. Type: make PYTHON=python3.11 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(SOURCES) $(MODULES) | $(VENV)/bin/python
	$(RUN) -m pip install --quiet --progress-bar off -e '.[demo]'
	touch $@

$(VENV)/.dev: $(SOURCES) $(MODULES) | $(VENV)/bin/python
	$(RUN) -m pip install --quiet --progress-bar off -e '.[dev]'
	touch $@ $(VENV)/.demo

$(VENV)/.bench: $(VENV)/.dev
	$(RUN) -m pip install --quiet --progress-bar off -e '.[bench,dev]'
	touch $@

# Of what .dev has installed, so that nothing is built again.
$(VENV)/.docs: $(VENV)/.dev
	$(RUN) -m pip install --quiet --progress-bar off 'bitheads[docs]'
	touch $@

$(VENV)/.readers $(VENV)/.spark: $(VENV)/.%: $(VENV)/.dev
	$(RUN) -m pip install --quiet --progress-bar off 'bitheads[$*]'
	touch $@

# The CPU build of ONNX Runtime and the GPU's are one folder: the last one that is installed wins,
# so this comes after .dev each time. The compiler is needed before, the packages that come now may
# bring parts of another one.
$(VENV)/.gpu: $(VENV)/.dev | $(VENV)/.pycuda $(DEVICE_CODE)
	$(RUN) -m pip install --progress-bar off -e '.[gpu,dev]'
	$(RUN) -m pip uninstall --quiet --yes onnxruntime
	$(RUN) -m pip install --quiet --progress-bar off --no-deps --force-reinstall onnxruntime-gpu
	touch $@

$(DEVICE_CODE): $(KERNELS) export/device_code.py | $(VENV)/.device
	$(RUN) -m bitheads device-code

# Pinned apart from the rest: a CUDA build of torch brings its own versions of some of these.
$(VENV)/.device: pyproject.toml constraints-device.txt | $(VENV)/.dev
	PIP_CONSTRAINT=$(CURDIR)/constraints-device.txt $(RUN) -m pip install --quiet --progress-bar off -e '.[device,rtx]'
	touch $@

# From source, against the headers of those packages; -lcuda is the software driver, which at run
# time has the name of NVIDIA's. pycuda takes its settings from the home folder: no curand, which
# would be another 60 MB for nothing. A cached wheel may be linked with other things. On a machine
# with a GPU it is NVIDIA's own driver that this pycuda loads: no CUDA toolkit is needed there.
$(VENV)/.pycuda: constraints-device.txt | $(VENV)/.device
	mkdir -p build/pycuda-home
	$(RUN) tests/device/software_driver.py --pycuda-settings >build/pycuda-home/.aksetup-defaults.py
	XDG_CONFIG_HOME="$${XDG_CONFIG_HOME:-$$HOME/.config}" CFLAGS="-O1 -g0 $$CFLAGS" \
	  PIP_CONSTRAINT=$(CURDIR)/constraints-device.txt \
	  env HOME=$(CURDIR)/build/pycuda-home $(RUN) -m pip install --quiet --progress-bar off \
	  --no-cache-dir --no-binary pycuda pycuda
	touch $@
