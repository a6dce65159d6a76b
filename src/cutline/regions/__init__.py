"""Descriptions of image regions: boxes with a phrase, a label and a confidence."""
