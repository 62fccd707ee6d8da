"""From a path to a `Competition`: find it, recognise its layout, read it, write the submission."""
