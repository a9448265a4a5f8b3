"""What everything stands on: images and their ranges, configuration, files, distributions, noise."""
