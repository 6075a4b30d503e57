"""HTML report of a cohort: its overview, figures and viewer."""
