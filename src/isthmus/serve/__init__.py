"""The catalog in service: an HTTP API and a page to draw on, over one catalog and one model."""
