"""The pages of the documentation as what can be run, so that what they show is what happens."""
