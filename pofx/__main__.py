"""`python -m pofx`: the command line where the script is not on the path."""

import sys

from pofx.cli import main

sys.exit(main())
