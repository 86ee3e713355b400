"""File formats, rows and downloads that data sets read from."""
