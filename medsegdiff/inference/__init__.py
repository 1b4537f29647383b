"""From an image to its ensemble: windows, members, statistics, and the files of a case."""
