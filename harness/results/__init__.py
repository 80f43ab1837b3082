"""What was found and measured, as data that knows no torch."""
