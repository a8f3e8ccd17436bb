"""Training jobs: start, watch and stop them, and what can be said of their past and future."""
