"""Feature extractors, by which images are compared: each turns a batch of images into features."""
