"""The review page: one site's drafts in a browser, for one person on this machine."""
