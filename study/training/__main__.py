"""Print a DeepSpeed configuration: ``python -m study.training --num-workers 8 --zero-stage 3``."""

import sys

from study.cli.deepspeed_config import main

if __name__ == "__main__":
    sys.exit(main())
