"""The battery on one loss: what `verify` plans, draws, shrinks and counts, and how a failure is repeated."""
