"""Trials that take too long for `make test`: what befalls a run, done to it for real, many times."""
