"""What a run computes on: device, precision, threads, random streams, processes."""
