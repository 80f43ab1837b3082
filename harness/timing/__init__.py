"""Measuring an implementation: clocks, the interleaved design, statistics and exact costs."""
