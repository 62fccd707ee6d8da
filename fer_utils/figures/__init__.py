"""Every figure and widget of the notebooks."""
