"""Readers of image formats, one file per family: path -> values and geometry.

Each reader is entered in :mod:`medsegdiff.data.formats`.
"""
