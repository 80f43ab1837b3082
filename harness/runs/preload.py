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
# What takes long and only some jobs need: those that ask all rules, those that compile, and those that time.
ALL_RULES = ("harness.rules.gradients.warm",)
COMPILER = ("torch._dynamo", "harness.rules.transforms.warm")
TIMING = ("harness.timing.benchmark",)
TIMERS = ("harness.timing.ahead",)  # of commands that are sure to time
