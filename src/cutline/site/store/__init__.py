"""The SQLite file of one site."""
