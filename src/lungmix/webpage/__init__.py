"""HTML report of a cohort: tables, figures and a viewer of scans. Figures of studies are drawn here too."""
