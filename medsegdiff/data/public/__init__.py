"""Layouts of public data sets as they are downloaded: positions of files, and their pairing."""
