"""Sources on a DICOMweb server: scans are listed from metadata, and instances are fetched while a scan is read."""
