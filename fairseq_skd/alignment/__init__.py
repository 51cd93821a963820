"""Compare the spikes of teacher and student (docs/alignment.md): metrics, tables and figures."""
