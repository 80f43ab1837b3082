"""Rules C: context."""
