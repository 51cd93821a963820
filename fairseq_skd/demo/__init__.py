"""The whole main job on a small synthetic corpus: ``python -m fairseq_skd.demo``."""

import logging

# Importing fairseq has set logging to DEBUG, where matplotlib tells of every font as soon as it is imported.
logging.getLogger("matplotlib").setLevel(logging.WARNING)
