"""Alt text in books and documents: EPUB, Word, PowerPoint, OpenDocument and PDF files."""
