"""A raw folder, or what predict is given, to a Dataset: which files there are and which belong together. Reading starts at `layouts`."""
