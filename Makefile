# Everything runs in the active environment: pip install -c constraints.txt -e ".[dev]"

.PHONY: test slow nightly old-processors lint format docs doctest mutants habits fake-cuda bench clean

test:  ## the fast suite, as in the README
	pytest -n 2

slow:  ## what the fast suite leaves to bash .ci/run: minutes
	pytest -n 2 -m "slow and not gpu and not nightly"

nightly:  ## every layer, habit and graph in the compilers, and long random batteries: hours
	pytest -n 2 -m "nightly and not gpu"

# Inductor's cache does not know of these settings, and would give code for wider registers: each has its own.
old-processors:  ## the fast suite with the arithmetic of processors without AVX-512, and of those without AVX2
	TORCHINDUCTOR_CACHE_DIR=$(CURDIR)/.cache/avx2 ATEN_CPU_CAPABILITY=avx2 MKL_ENABLE_INSTRUCTIONS=AVX2 ONEDNN_MAX_CPU_ISA=AVX2 pytest -n 2
	TORCHINDUCTOR_CACHE_DIR=$(CURDIR)/.cache/sse ATEN_CPU_CAPABILITY=default MKL_ENABLE_INSTRUCTIONS=SSE4_2 ONEDNN_MAX_CPU_ISA=SSE41 pytest -n 2

lint:  ## style and types
	ruff check .
	ruff format --check .
	mypy

format:
	ruff check --fix .
	ruff format .

docs:  ## docs/_build/html/index.html; a warning is an error
	sphinx-build -W --keep-going -q -b html docs docs/_build/html

doctest:  ## every example of the docs and the docstrings
	sphinx-build -W --keep-going -q -b doctest docs docs/_build/doctest

mutants:  ## plant bugs and count those that the tests catch
	python -m tests.support.mutants

habits:  ## what people do with modules, on every family of layers in every runner: a table
	python -m tests.habits

# An environment of its own, because torch's CUDA build takes gigabytes; CUDA_PYTHON=... names another one.
CUDA_PYTHON ?= .venv-cuda/bin/python
.venv-cuda/bin/python:
	python3.11 -m venv .venv-cuda
	.venv-cuda/bin/pip install torch==2.14.1 numpy networkx safetensors pytest matplotlib pillow

fake-cuda: $(CUDA_PYTHON)  ## every layer and the paper's models on fake CUDA tensors; needs no GPU
	$(CUDA_PYTHON) -m tests.support.fake_cuda

bench:  ## pip install -c constraints.txt -e ".[bench]" first
	python -m tests.benchmarks

clean:
	rm -rf build dist *.egg-info docs/_build docs/api/generated docs/drawings docs/gallery_pages .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
