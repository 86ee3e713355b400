"""The hardware of a run: device, precision, threads, random streams, processes."""
