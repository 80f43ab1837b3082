"""One drawn example: its sizes and values as data, how it is drawn, and its tensors."""
