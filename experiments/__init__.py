"""Many runs of the recipe: cells, tables, figures."""
