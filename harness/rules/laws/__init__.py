"""Rules L: the declared laws."""
