"""Files on disk: archives, downloads, the cache, and the tree of all files of a data set."""
