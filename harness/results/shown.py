"""What shows itself in a notebook as in the report."""

from __future__ import annotations


class Shown:
    """A result or a declaration, which IPython asks for a part of a page.

    What makes it is made of everything else and loads the templates, so that it is imported here when it is asked for.
    """

    def _repr_html_(self) -> str:
        from harness.runs.notebook import html

        return html(self)
