"""What jobs need; none of these starts a thread or touches a device when it is imported."""

PRELOAD = (
    "torch",
    "torch._functorch.apis",
    "torch.autograd.forward_ad",
    "torch.fx.experimental.symbolic_shapes",  # whoever gives a gradient to start from imports it: half a second
    "harness.runs.perform",
    "harness.checking.stopped",
    "harness.runs.warm",
)
# What takes long and only some jobs need: those that compile, and those that time.
COMPILER = ("torch._dynamo",)
TIMING = ("harness.timing.benchmark",)
TIMERS = ("harness.timing.ahead",)  # of commands that are sure to time
