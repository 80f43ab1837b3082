"""The contests, one module for each kind of loss; a timing process loads the one that it needs."""
