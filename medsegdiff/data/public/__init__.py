"""Public data sets as they are downloaded: where their files lie, and what belongs together."""
