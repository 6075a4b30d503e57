"""What people look at: overview, figures and the page."""
