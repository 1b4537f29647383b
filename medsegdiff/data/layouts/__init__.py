"""Data sets as people have them, one file a layout: folder -> description of the data set.

Each layout is entered in :mod:`medsegdiff.data.layouts.registry`.
"""
