"""What a loss says of itself: tensors, domains, laws, and where its declaration is found.  Nothing here runs a loss."""
