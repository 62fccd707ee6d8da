"""What the columns of the data are: splits, labels, classes and ids."""
