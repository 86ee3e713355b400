"""Pure functions of distributions and log-weights, and the geometry that objectives share."""
