"""Writes the tables of README.md anew.

    python bench/readme_table.py
    python bench/readme_table.py --check    # only says whether they are what the results say

The results are those that README.md names in `<!-- peers: FILES -->`: files of bench/cpu_peers.py --output STEM.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from peers.readme import renewed

_README = Path(__file__).parents[1] / "README.md"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 where README.md differs")
    args = parser.parse_args()
    text = _README.read_text(encoding="utf-8")
    new = renewed(text, _README.parent)
    if not args.check:
        _README.write_text(new, encoding="utf-8")
    elif new != text:
        sys.exit("README.md does not show what its results say: python bench/readme_table.py writes its tables anew")


if __name__ == "__main__":
    main()
