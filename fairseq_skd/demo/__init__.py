"""The whole main job on a small synthetic corpus: ``python -m fairseq_skd.demo``."""
