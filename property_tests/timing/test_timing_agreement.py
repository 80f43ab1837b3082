"""What is said of values that are not the reference's: the element, what came, what should have come, by how much."""

import math

import pytest
import torch

from harness.timing.agreement import difference, not_finite


def values(loss, *gradients):
    return tuple(torch.tensor(value, dtype=torch.float64) for value in (loss, *gradients))


@pytest.mark.parametrize(
    ("came", "differentiable", "message"),
    [
        (values(1.5, [1.0, 2.0, 3.0]), ["p"], "loss = 1.5, expected 1 (off by 0.5, allowed 0.001)"),
        (values(1.0, [1.0, 2.1, 3.5]), ["p"], "gradient[2] = 3.5, expected 3 (off by 0.5, allowed 0.003)"),
        (values(1.0, [1.0, math.nan, 9]), ["p"], "gradient[1] = nan, expected 2 (off by nan, allowed 0.003)"),
    ],
)
def test_the_element_that_is_farthest_off_is_shown(came, differentiable, message):
    found = difference(came, values(1.0, [1.0, 2.0, 3.0]), differentiable, 0.0, "float32")
    assert found == f"differs from the reference on the timed input: {message}"


def test_of_several_gradients_the_input_is_named_and_of_several_axes_each_index():
    expected = values(1.0, [1.0], [[1.0, 2.0], [3.0, 4.0]])
    found = difference(values(1.0, [1.0], [[1.0, 2.0], [5.0, 4.0]]), expected, ["p", "q"], 0.0, "float32")
    assert found.endswith(": gradient of q[1, 0] = 5, expected 3 (off by 2, allowed 0.004)")


def test_what_is_off_by_no_more_than_rounding_agrees():
    assert difference(values(1.0005, [1.0]), values(1.0, [1.0]), ["p"], 0.0, "float32") is None
    assert difference(values(1.0005, [1.0]), values(1.0, [1.0]), ["p"], 0.0, "float64") is not None
    assert difference(values(1.5, [1.0]), values(1.0, [1.0]), ["p"], 1000.0, "float32") is None


def test_another_shape_and_no_elements_are_told_apart():
    found = difference(values([1.0]), values(1.0), [], 0.0, "float32")
    assert found == "the loss has shape [1], but the reference's has []"
    assert difference(values([]), values([]), [], 0.0, "float32") is None


def test_the_first_element_that_is_not_finite_is_shown():
    found = not_finite(values(1.0, [[1.0, 2.0], [math.inf, math.nan]]), ["p"])
    assert found == "the gradient on the timed input is not finite: gradient[1, 0] = inf"
    assert not_finite(values(1.0, [1.0]), ["p"]) is None
    assert not_finite(values(1.0), ["p"]) is None
