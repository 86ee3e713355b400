"""The command line: dispatch, Hydra application, overrides, errors, completion."""
