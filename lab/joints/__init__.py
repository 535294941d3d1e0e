"""The bundled joint finders: their pictures, their training, and how near they come."""
