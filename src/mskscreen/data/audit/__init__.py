"""Everything about the images of a data set that usually goes wrong, found before training."""
