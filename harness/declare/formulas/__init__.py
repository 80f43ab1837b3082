"""A loss written as one line of its formula: the reference that nobody has to program.

    sum(w[b] * (p[b, c] - y[b, c])**2 for b in B for c in C) / (B * C)

It is a Python expression over declared names: tensors, which are looked up by index; symbols, which are sizes; options; and
the variables that `for` binds.  It is read by `ast` and never evaluated as code.
"""

from harness.declare.formulas.formula import Formula

__all__ = ["Formula"]
