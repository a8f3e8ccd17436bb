"""Trained models: the files of the outputs folder, and their downloads."""
