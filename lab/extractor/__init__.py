"""The bundled feature extractor: its training, and what the judge's checks catch."""
