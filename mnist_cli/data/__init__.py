"""The data sets: their files, and how they are fetched, read, drawn and cached."""
