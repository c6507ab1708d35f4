"""Reports a person can open: one HTML file without outside resources."""
