"""Reading pages: HTML, Markdown, crawls and crawlers' exports."""
