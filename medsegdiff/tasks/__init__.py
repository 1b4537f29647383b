"""Level 4: whole jobs, from a user's files to a user's files."""
