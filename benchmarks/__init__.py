"""What training with a self-student and decoding at its depth cost: one script a question, see README.md."""
