"""Rules T: transforms."""
