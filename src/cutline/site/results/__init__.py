"""Results for people and other programs: exports, review spreadsheets, reports."""
