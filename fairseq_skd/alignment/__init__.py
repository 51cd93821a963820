"""Where teacher and student spike, and how far they agree (method section 4): metrics, figures, the command's work."""
