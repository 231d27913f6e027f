"""Workers share the cores: with more threads than cores torch runs many times slower."""

import os

import torch

workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
threads = max(1, (os.cpu_count() or 1) // workers)
torch.set_num_threads(threads)
os.environ.setdefault("OMP_NUM_THREADS", str(threads))  # for the processes that tests start
