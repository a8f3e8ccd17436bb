"""Trainers behind one port: what starts a training, and what tells how it stands."""
