"""Datasets: what lies in a folder of images, how it gets there whole, and whether it is fit for training."""
