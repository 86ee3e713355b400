"""What images are compared by: each turns a batch of images into features."""
