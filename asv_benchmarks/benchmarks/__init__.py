"""asv benchmarks over the losses that `config.json` names as targets: a new loss needs nothing here.

`exact_costs` counts what does not drift, and is what a gate may rest on; `times` is evidence.  `config.json` names the
profile (see `profiles`) and the devices too; the environment variable ``LOSS_HARNESS_ASV_PROFILE`` overrides the profile.
"""
