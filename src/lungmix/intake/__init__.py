"""From sources to cases: which scans sources hold, what each case is called, what is kept of its patient."""
