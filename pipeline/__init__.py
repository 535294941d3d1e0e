"""Turn a request (skeleton video, picture, seed) into a finished video file."""
