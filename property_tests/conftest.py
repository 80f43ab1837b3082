"""Shared by all tests: one thread, so that workers do not fight over cores, and pytest's own test tools."""

import torch

pytest_plugins = ["pytester"]

torch.set_num_threads(1)
