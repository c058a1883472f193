"""Tables: random access to the rows of any file format."""
