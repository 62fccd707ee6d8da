"""Augmentation, networks, optimizers, the training loop and metrics: everything that computes."""
