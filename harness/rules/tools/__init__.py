"""What rules share: tensors that they make, comparisons, slopes, sizes, remarks."""
