"""The catalog: vectors, metadata and the model's fingerprint in one transactional table, and the search in it."""
