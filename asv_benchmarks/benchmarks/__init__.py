"""asv benchmarks over `losses.SPECS`: a new loss needs nothing here."""
