"""The bundled presenter: its rendered people and its training."""
