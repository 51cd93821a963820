"""All steps on a small synthetic corpus: ``python -m fairseq_skd.demo``."""
