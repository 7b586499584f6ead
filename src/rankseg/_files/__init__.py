"""Reading and writing: formats, folders, and files written whole or not at all."""
