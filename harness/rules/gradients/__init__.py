"""Rules G: gradients."""
