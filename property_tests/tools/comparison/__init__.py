"""The reference losses beside the usual ways of writing them and beside third-party packages, with every figure's target."""
