"""Verdicts, their reasons and comparisons of reports, from results alone."""
