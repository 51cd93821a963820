"""Where teacher and student spike, and how far they agree (docs/alignment.md): metrics, figures, the command's work."""
