"""One file a family of image formats: path -> values and geometry.

Each reader is entered in :mod:`medsegdiff.data.formats`.
"""
