"""Commands, by what people do: run stages, inspect a cohort, maintain it."""
