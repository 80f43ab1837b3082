"""Rules S: state."""
