"""Mutants of the rules about state: S01, S02."""

from __future__ import annotations

import os
import random
import sys

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from mutants.pair import pair


def mean_squared(predictions, labels):
    return ((predictions - labels) ** 2).mean()


def with_torch_noise(predictions, labels):
    return ((predictions + 0.1 * torch.randn_like(predictions) - labels) ** 2).mean()


def with_noise_of_its_own(predictions, labels):
    own = torch.Generator().manual_seed(0)
    noise = torch.randn(predictions.shape, generator=own, dtype=predictions.dtype)
    return ((predictions + 0.1 * noise - labels) ** 2).mean()


def with_a_python_draw(predictions, labels):
    return ((predictions - labels) ** 2).mean() * random.uniform(0.5, 1.5)


def with_numpy_negatives(predictions, labels):
    row = int(np.random.randint(1000)) % len(labels)
    return ((predictions - labels[row]) ** 2).mean()


class DropoutAlways(nn.Module):
    def forward(self, predictions, labels):
        return ((F.dropout(predictions, 0.5) - labels) ** 2).mean()


class DropoutInTraining(nn.Module):
    def forward(self, predictions, labels):
        return ((F.dropout(predictions, 0.5, self.training) - labels) ** 2).mean()


def with_a_column_unset(predictions, labels):
    errors = torch.empty_like(predictions)
    errors[:, :-1] = (predictions - labels)[:, :-1] ** 2
    return errors.mean()


def with_all_columns_set(predictions, labels):
    errors = torch.empty_like(predictions)
    errors[:, :-1] = (predictions - labels)[:, :-1] ** 2
    errors[:, -1] = (predictions - labels)[:, -1] ** 2
    return errors.mean()


class LastRowUnset(torch.autograd.Function):
    @staticmethod
    def forward(ctx, predictions, labels):
        ctx.save_for_backward(predictions, labels)
        return mean_squared(predictions, labels)

    @staticmethod
    def backward(ctx, upstream):
        predictions, labels = ctx.saved_tensors
        gradient = torch.empty_like(predictions)
        gradient[:-1] = upstream * 2 * (predictions - labels)[:-1] / predictions.numel()
        return gradient, None

    @classmethod
    def loss(cls, predictions, labels):
        return cls.apply(predictions, labels)


def seeds_torch(predictions, labels):
    torch.manual_seed(0)
    return mean_squared(predictions + 0.1 * torch.randn_like(predictions), labels)


def seeds_python(predictions, labels):
    random.seed(0)
    return mean_squared(predictions, labels[random.sample(range(len(labels)), len(labels))])


def samples_in_an_order_of_its_own(predictions, labels):
    own = random.Random(0)
    return mean_squared(predictions, labels[own.sample(range(len(labels)), len(labels))])


def seeds_numpy(predictions, labels):
    np.random.seed(0)
    return mean_squared(predictions, labels[torch.from_numpy(np.random.permutation(len(labels)))])


def draws_and_forgets(predictions, labels):
    torch.rand(())
    return mean_squared(predictions, labels)


def turns_gradients_on(predictions, labels):
    torch.set_grad_enabled(False)
    scale = labels.abs().max().clamp(min=1)
    torch.set_grad_enabled(True)
    return mean_squared(predictions, labels) / scale


def without_gradients_for_the_scale(predictions, labels):
    with torch.no_grad():
        scale = labels.abs().max().clamp(min=1)
    return mean_squared(predictions, labels) / scale


def leaves_gradients_off(predictions, labels):
    value = mean_squared(predictions, labels)
    torch.set_grad_enabled(False)
    return value


def sets_the_default_dtype(predictions, labels):
    torch.set_default_dtype(torch.float64)
    return mean_squared(predictions, labels) + torch.zeros((), dtype=predictions.dtype)


def sets_the_threads(predictions, labels):
    torch.set_num_threads(torch.get_num_threads() + 1)
    return mean_squared(predictions, labels)


def sets_deterministic_algorithms(predictions, labels):
    torch.use_deterministic_algorithms(True)
    return mean_squared(predictions, labels)


def detects_anomalies_from_now_on(predictions, labels):
    torch.autograd.set_detect_anomaly(True)
    return mean_squared(predictions, labels)


def multiplies_in_tf32_from_now_on(predictions, labels):
    torch.backends.cuda.matmul.allow_tf32 = True
    return mean_squared(predictions, labels)


def multiplies_in_tf32_for_itself(predictions, labels):
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        return mean_squared(predictions, labels)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def lowers_the_precision_of_products(predictions, labels):
    torch.set_float32_matmul_precision("medium")
    return mean_squared(predictions, labels)


def lets_cudnn_try_kernels(predictions, labels):
    torch.backends.cudnn.benchmark = True
    return mean_squared(predictions, labels)


def lets_cudnn_try_kernels_for_itself(predictions, labels):
    with torch.backends.cudnn.flags(benchmark=True, allow_tf32=torch.backends.cudnn.allow_tf32):
        return mean_squared(predictions, labels)


def sets_an_environment_variable(predictions, labels):
    os.environ["LOSS_OF_LAST_CALL"] = str(len(labels))
    return mean_squared(predictions, labels)


def extends_the_module_path(predictions, labels):
    sys.path.append("beside the loss")
    return mean_squared(predictions, labels)


def goes_to_the_root(predictions, labels):
    os.chdir("/")
    return mean_squared(predictions, labels)


def looks_at_the_root_and_returns(predictions, labels):
    here = os.getcwd()
    os.chdir("/")
    os.chdir(here)
    return mean_squared(predictions, labels)


def replaces_a_function(predictions, labels):
    torch.nn.functional.mse_loss = lambda one, other: mean_squared(one, other)
    return torch.nn.functional.mse_loss(predictions, labels)


def replaces_stderr(predictions, labels):
    sys.stderr = sys.stdout
    return mean_squared(predictions, labels)


PAIRS = (
    pair("S01", "noise from torch", with_torch_noise, with_noise_of_its_own),
    pair("S01", "a draw from Python", with_a_python_draw, mean_squared),
    pair("S01", "negatives from NumPy", with_numpy_negatives, mean_squared),
    pair("S01", "dropout in eval mode", DropoutAlways, DropoutInTraining),
    pair(
        "S01", "a column that nobody writes", with_a_column_unset, with_all_columns_set, says="empty_like at state.py"
    ),
    pair(
        "S01",
        "a gradient row that nobody writes",
        LastRowUnset.loss,
        mean_squared,
        says="d loss / d predictions with NaN",
    ),
    pair("S02", "seeds torch", seeds_torch, with_noise_of_its_own, aspect="torch's"),
    pair("S02", "seeds Python", seeds_python, samples_in_an_order_of_its_own, aspect="Python's"),
    pair("S02", "seeds NumPy", seeds_numpy, samples_in_an_order_of_its_own, aspect="NumPy's"),
    pair("S02", "draws from torch", draws_and_forgets, mean_squared, severity="warning", aspect="torch's"),
    pair("S02", "turns gradients on", turns_gradients_on, without_gradients_for_the_scale, aspect="grad_enabled"),
    pair("S02", "leaves gradients off", leaves_gradients_off, mean_squared, aspect="grad_enabled"),
    pair("S02", "default dtype", sets_the_default_dtype, mean_squared, aspect="default_dtype"),
    pair("S02", "threads", sets_the_threads, mean_squared, aspect="num_threads"),
    pair("S02", "deterministic algorithms", sets_deterministic_algorithms, mean_squared, aspect="deterministic"),
    pair("S02", "anomaly detection", detects_anomalies_from_now_on, mean_squared, aspect="anomaly"),
    pair("S02", "TF32", multiplies_in_tf32_from_now_on, multiplies_in_tf32_for_itself, aspect="precision"),
    pair("S02", "precision of products", lowers_the_precision_of_products, mean_squared, aspect="matmul_precision"),
    pair("S02", "kernels of cuDNN", lets_cudnn_try_kernels, lets_cudnn_try_kernels_for_itself, aspect="benchmark"),
    pair("S02", "an environment variable", sets_an_environment_variable, mean_squared, aspect="LOSS_OF_LAST_CALL"),
    pair("S02", "the module path", extends_the_module_path, mean_squared, aspect="sys.path"),
    pair("S02", "the working directory", goes_to_the_root, looks_at_the_root_and_returns, aspect="getcwd"),
    pair("S02", "a function of torch", replaces_a_function, mean_squared, aspect="mse_loss"),
    pair("S02", "a standard stream", replaces_stderr, mean_squared, aspect="sys.stderr"),
)
