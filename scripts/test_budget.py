"""Show what each option of conf/ cost in the last run of the whole suite: `python scripts/test_budget.py`.

Seconds of processor time: on a busy machine they hardly change.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def main() -> int:
    sys.path.insert(0, str(ROOT))
    from tests.budget import last_run, table

    try:
        print("\n".join(table(last_run(ROOT))))
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
