"""`python -m llmartifacts`: the command line."""

import sys

from llmartifacts.cli.main import main

sys.exit(main())
