"""Many runs that make one table: rows x splits x seeds, each trained, measured, and never done twice."""
