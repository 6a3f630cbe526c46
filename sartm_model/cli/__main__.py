"""`python -m sartm_model.cli`, the same as `sartm`."""

import sys

from sartm_model.cli.main import main

if __name__ == '__main__':
    sys.exit(main())
