"""`python -m natgw.cni` is the command `natgw-cni`."""

import sys

from natgw.cni import main

sys.exit(main())
