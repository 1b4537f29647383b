"""Self-contained HTML pages from the package's templates."""

from __future__ import annotations

from math import isnan
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


def render(name: str, **values: Any) -> str:
    """The page ``templates/<name>.html.j2``, filled with ``values``; text is escaped.

    The filter ``figure(digits=3)`` writes a number with that many decimals, and a dash for NaN.

    Args:
        name: Name of the template, without endings.
        values: Variables of the template.

    Returns:
        HTML of the page.

    Raises:
        jinja2.UndefinedError: the template needs a variable that is not given.
    """
    environment = Environment(
        loader=PackageLoader("medsegdiff.viz", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["figure"] = lambda value, digits=3: (
        "–" if isnan(value) else f"{value:.{digits}f}"
    )
    return environment.get_template(f"{name}.html.j2").render(**values)
