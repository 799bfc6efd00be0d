"""What a file would do, without doing it."""
