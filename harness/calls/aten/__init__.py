"""ATen operations as a dispatch mode sees them: what they do with their arguments, and the storages that they make."""
