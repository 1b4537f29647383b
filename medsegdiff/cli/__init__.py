"""The command line: one thin file a command. Each parses, calls and prints."""
