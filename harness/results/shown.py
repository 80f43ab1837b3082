"""What shows itself in a notebook as in the report."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar


class Shown:
    """A result or a declaration, which IPython asks for a part of a page.

    What makes one is made of everything else: the package, which knows all, says what it is.
    """

    page: ClassVar[Callable[[Any], str]]

    def _repr_html_(self) -> str:
        return type(self).page(self)
