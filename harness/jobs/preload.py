"""What every job needs; none of these starts a thread or touches a device when it is imported."""

PRELOAD = (
    "torch",
    "torch._dynamo",
    "torch._functorch.apis",
    "torch.autograd.forward_ad",
    "pandas",
    "harness.jobs.perform",
    "harness.stopped",
    "harness.jobs.warm",
)
