"""HTML pages: one renderer, and the templates."""
