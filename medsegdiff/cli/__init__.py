"""The command line, one file per command: parses options, calls the library, prints results."""
