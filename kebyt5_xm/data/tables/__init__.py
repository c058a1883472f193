"""Tables: rows of any file format, each read at once."""
