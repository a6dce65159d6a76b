"""Alt text for whole websites: find images, decide, caption, review, write back."""
