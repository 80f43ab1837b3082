"""Exact costs of one call: calls, bytes, floating-point operations; they do not drift."""
