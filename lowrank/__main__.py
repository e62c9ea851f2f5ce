"""python -m lowrank"""

import sys

from .cli import main

sys.exit(main())
