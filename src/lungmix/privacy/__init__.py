"""Protection of patients: allowlists of header values, and identities that are never stored."""
