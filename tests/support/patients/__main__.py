"""Print the table of patients of ``docs/anatomical.md``: ``python -m support.patients`` in the folder of the tests."""

from support.patients.cases import CASES
from support.patients.outcome import outcome, table_row
from support.patients.scan import scan

if __name__ == "__main__":
    for name, patient in CASES.items():
        print(table_row(name, outcome(scan(patient))), flush=True)
