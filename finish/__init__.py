"""A cover and cut-downs for every video: small networks and plain signals on the toolkit's own rooms."""
