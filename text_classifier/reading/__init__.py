"""Read the files of messages that people give us."""
