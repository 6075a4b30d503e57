"""What may be known of a patient: acquisition data on an allow-list, pseudonyms, names that are left out."""
