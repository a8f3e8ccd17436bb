"""Training configs: their files, and what they are made from."""
