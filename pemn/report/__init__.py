"""What a run cost and what it gave, as one HTML page.

The files that it is made from are described by `summary.schema.json` and `ledger.schema.json` beside this file.
"""

from pemn.report.page import render

__all__ = ["render"]
