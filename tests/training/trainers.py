"""fairseq's trainer on a corpus of a few seconds, in this process."""

from pathlib import Path

from fairseq import tasks
from fairseq.trainer import Trainer

from fairseq_skd.cli import compose
from fairseq_skd.training.checks import check_composed
from tests.builders import write_pretrained
from tests.end_to_end.training import REPOSITORY, SMALL, corpus


def build_trainer(folder: Path, *overrides: str) -> Trainer:
    """Build a trainer on seven utterances, two or three per batch.

    Corpus and encoder are written to ``folder`` if they are missing.
    """
    data, encoder = folder / "data", folder / "w2v.pt"
    if not encoder.is_file():
        corpus(data)
        write_pretrained(encoder)
    given = [*SMALL, f"task.data={data}", f"model.w2v_path={encoder}", f"checkpoint.save_dir={folder}"]
    given += ["common.user_dir=null", *overrides]
    cfg = check_composed(compose(REPOSITORY / "config" / "finetune", "hubert_mini", given))
    task = tasks.setup_task(cfg.task)
    trainer = Trainer(cfg, task, task.build_model(cfg.model), task.build_criterion(cfg.criterion))
    task.load_dataset("valid")
    return trainer


def batches(trainer: Trainer, subset: str = "train") -> list:
    """List all batches of a subset."""
    iterator = trainer.get_train_iterator(1) if subset == "train" else trainer.get_valid_iterator(subset)
    return list(iterator.next_epoch_itr(shuffle=False))
