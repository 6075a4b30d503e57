"""Commands in modules by purpose: run stages, inspect a cohort, maintain it."""
