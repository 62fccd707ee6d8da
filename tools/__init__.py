"""What `make` runs and no notebook imports: Kaggle notebooks, sweeps, reference results, the report."""
