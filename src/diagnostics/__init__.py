"""What watches a run: one file a diagnostic, its callback beside the figure that it draws."""
