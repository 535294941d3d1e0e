"""Share a run's videos, or the windows of one video, between processes, devices or machines."""
