"""What is served: the REST interface, the page to try it on, the review page."""
