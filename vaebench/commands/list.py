"""`vaebench list`."""


def main(words: list[str]) -> int:
    """List."""
    return 0
