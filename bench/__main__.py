"""`make bench`: a table of ours, the usual way in the same run, the ratio and the goal. ARGS=ingest or pages for a part."""

from __future__ import annotations

import sys

from bench.ingest import rows_a_second
from bench.pages import pages

PARTS = {"ingest": rows_a_second, "pages": lambda: pages((10, 100)), "pages-small": lambda: pages((10,))}


def main() -> None:
    names = sys.argv[1:] or ["ingest", "pages"]
    rows = [("measured", "ours", "usual way", "ratio", "goal", "")]
    for name in names:
        rows.extend(PARTS[name]())
    widths = [max(len(row[column]) for row in rows) for column in range(6)]
    for row in rows:
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())


if __name__ == "__main__":
    main()
