"""What is in the data, why a run errs, whether a change helped, and ensembles."""
