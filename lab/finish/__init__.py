"""The bundled cover scorer: its pictures, its training, its evaluation."""
