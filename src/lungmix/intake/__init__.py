"""From sources to cases: discovery of scans, case names, retained patient attributes, the key table."""
