"""What an image needs: the W3C decision tree, alt text, lint."""
