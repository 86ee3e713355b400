"""The verbs: one straight-line function each."""
