"""Writing approved alt text into files, and undoing it."""
