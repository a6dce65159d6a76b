"""Sentences for the shots of a video, with their times."""
