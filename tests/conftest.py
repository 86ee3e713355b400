"""Shared by every test: one thread, fixed seed."""

import os

import pytest
import torch

os.environ.setdefault("OMP_NUM_THREADS", "1")  # trainers leave the number of threads to who sets it
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)
