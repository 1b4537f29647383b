"""Outlines of masks as vector paths, for pages in a browser."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def outline(inside: NDArray[np.bool_]) -> str:
    """SVG path of closed loops along the edges of a mask's pixels.

    Args:
        inside: Mask (rows, columns); the upper left corner of a pixel is at (column, row).

    Returns:
        Path in units of pixels, "" for an empty mask. The fill rule "evenodd" leaves the holes.

    >>> outline(np.array([[True, True], [False, False]]))
    'M0 0h2v1h-2z'
    """
    edges = _directed_edges(inside)
    loops = []
    while edges:
        start = point = next(iter(edges))
        runs: list[list[int]] = []
        while point != start or not runs:
            following = edges[point].pop()
            if not edges[point]:
                del edges[point]
            across, down = following[0] - point[0], following[1] - point[1]
            if runs and (runs[-1][0] != 0) == (across != 0):
                runs[-1][0] += across
                runs[-1][1] += down
            else:
                runs.append([across, down])
            point = following
        steps = "".join(f"h{across}" if across else f"v{down}" for across, down in runs[:-1])
        last = runs[-1]
        closing = f"h{last[0]}" if last[0] else ""  # "z" draws the last step down or up
        loops.append(f"M{start[0]} {start[1]}{steps}{closing}z")
    return "".join(loops)


def _directed_edges(inside: NDArray[np.bool_]) -> dict[tuple[int, int], list[tuple[int, int]]]:
    """Start -> ends of the pixels' edges at the border, clockwise around the mask."""
    padded = np.pad(inside, 1)
    sides = (  # the neighbouring pixels, and the edge's start and end as (column, row)
        (padded[:-2, 1:-1], (0, 0), (1, 0)),
        (padded[1:-1, 2:], (1, 0), (1, 1)),
        (padded[2:, 1:-1], (1, 1), (0, 1)),
        (padded[1:-1, :-2], (0, 1), (0, 0)),
    )
    edges: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for beyond, start, end in sides:
        for row, column in np.argwhere(inside & ~beyond).tolist():
            first = (column + start[0], row + start[1])
            edges.setdefault(first, []).append((column + end[0], row + end[1]))
    return edges
