"""One call of a loss, watched: what it gives, what it costs, and what it leaves behind in the process."""
