"""A run folder from start to finish: training, checkpoints, results, and starting it on devices."""
