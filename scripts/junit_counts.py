"""Counts a JUnit file (ctest's or pytest's): `passed failed skipped`, then a line for each reason to skip."""

import sys
import xml.etree.ElementTree as ET
from collections import Counter
from itertools import pairwise
from pathlib import Path


def reason(case: ET.Element, skipped: ET.Element) -> str:
    """GTEST_SKIP's message stands in the case's output, one line after its place; pytest's in the element itself."""
    lines = [line.strip() for line in (case.findtext("system-out") or "").splitlines()]
    for line, following in pairwise(lines):
        if line.endswith(": Skipped") and following:
            return following
    return skipped.get("message") or "no reason given"


def main(path: Path) -> None:
    passed = failed = 0
    reasons: Counter[str] = Counter()
    for case in ET.parse(path).iter("testcase"):
        skipped = case.find("skipped")
        if skipped is not None:
            reasons[reason(case, skipped)] += 1
        elif case.get("status") == "disabled":
            reasons["disabled in the source"] += 1
        elif case.find("failure") is not None or case.find("error") is not None:
            failed += 1
        else:
            passed += 1
    print(passed, failed, reasons.total())
    for text, count in reasons.most_common():
        print(f"{count} x {text}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
