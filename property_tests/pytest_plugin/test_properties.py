"""Every loss of this repository under the whole battery."""

import harness
import losses


@harness.parametrize_with_checks(losses.SPECS)
def test_losses(check):
    check()
