"""`python -m recdistill`."""

from __future__ import annotations

from recdistill.cli import main

if __name__ == "__main__":
    main()
