"""Writes the tables of README.md anew: python bench/readme_table.py.

The results are those that README.md names in `<!-- peers: FILES -->`: files of bench/cpu_peers.py --output STEM. A test
fails where the tables are not what they say.
"""

from __future__ import annotations

from pathlib import Path

from peers.readme import renewed

_README = Path(__file__).parents[1] / "README.md"


if __name__ == "__main__":
    _README.write_text(renewed(_README.read_text(encoding="utf-8"), _README.parent), encoding="utf-8")
