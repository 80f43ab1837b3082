"""Rules B: shapes."""
