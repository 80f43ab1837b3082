"""Rules P: costs."""
