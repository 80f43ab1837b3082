"""Rules E: equals the reference."""
