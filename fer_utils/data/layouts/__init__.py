"""How data sets lay out their images and labels, one file for each family."""
