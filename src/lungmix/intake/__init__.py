"""From sources to cases: find scans and masks, name cases, keep the requested patient data, write the key table."""
