"""Doctests of docstrings as blocks of code: without a fence Markdown takes ``>>>`` for a quote."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

_DOCTEST = re.compile(r"^>>> .*(?:\n.+)*", re.M)


class FencedDoctests(Extension):
    """Puts a fence around each doctest that begins at a docstring's own margin."""

    def on_object(self, *, obj: Object, **kwargs: Any) -> None:
        """Change the docstring of an object."""
        if obj.docstring:
            obj.docstring.value = _DOCTEST.sub(r"```pycon\n\g<0>\n```", obj.docstring.value)
