"""How many mutants of correct losses the harness catches: `python -m property_tests.tools.mutation`.

A mutant is a correct loss whose source is changed at one place by one operator.  Every operator is a sentence and a
rewrite of a syntax tree (`operators`); a loss is made a text of its own (`program`), the text is changed (`mutants`),
what is indistinguishable from the original is set aside (`equivalence`), and the rest is given to `harness.verify`,
with the reference beside it and alone (`score`).
"""
