"""Make videos as a service: jobs over HTTP, streams that play while they are made, and a page."""
