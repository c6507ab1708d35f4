"""A room of Isthmus; see the file tree in the README."""
