"""`python -m vaebench`: the same as the command `vaebench`."""

import sys

from vaebench.cli.main import main

sys.exit(main())
