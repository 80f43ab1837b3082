"""From a loss that declares nothing to a proposed declaration: what its signature, names and docstring say, and trial calls."""
