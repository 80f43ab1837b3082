"""Rules D: dtypes."""
