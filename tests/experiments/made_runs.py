"""Runs made by hand, whose counts are known."""

import json

from experiments.claims import Claim
from experiments.outcomes import Outcomes

ARMS = {"ctc": {"exits": [4]}, "skd": {"exits": [4, 2]}, "kd": {"exits": [2]}, "later": {"exits": [2]}}
GRID = """
corpus: tiny
config: hubert_mini
seeds: [1, 2]
subsets: [test]
common: {}
decode: {}
tries: {}
arms:
  ctc: {exits: [4]}
  skd: {exits: [4, 2]}
  kd: {exits: [2], needs: ctc}
  later: {exits: [2]}
claims:
  - {claim: the student wins, better: skd 2, worse: kd 2}
  - {claim: it spikes with its teacher, rate: spikes, better: skd 2, worse: kd 2}
  - {claim: nothing is lost, better: skd 4, worse: ctc 4, margin: 30}
  - {claim: of another day, better: skd 2, worse: later 2}
"""


def decoded(folder, wrong):
    """Eight utterances of four words; ``wrong`` tells how many words of each are not as they should be."""
    folder.mkdir(parents=True)
    lines = [["x"] * errors + ["a"] * (4 - errors) for errors in wrong]
    (folder / "hypo.word").write_text("".join(f"{' '.join(line)} (None-{i})\n" for i, line in enumerate(lines)))
    (folder / "ref.word").write_text("".join(f"a a a a (None-{i})\n" for i in range(len(wrong))))
    (folder / "summary.json").write_text(json.dumps({"word_errors": sum(wrong), "words": 4 * len(wrong)}))


def run(out, arm, seed, wrong, lost=None, data="abc", updates=30, command="train", encoder="def"):
    """``wrong``: exit -> errors of each utterance; ``lost``: of 2 spikes of the teacher in each."""
    folder = out / "tiny" / arm / f"seed{seed}"
    scores = []
    for layer, errors in wrong.items():
        decoded(folder / "decode" / f"test-layer{layer}", errors)
        score = {"subset": "test", "exit": layer, "wer": 100 * sum(errors) / 32, "parameters": 1000 * layer}
        scores.append({**score, "character_errors": sum(errors), "characters": 56})
    result = {"corpus": "tiny", "arm": arm, "seed": seed, "commit": "1111111", "seconds": 1.0, "command": command}
    result |= {"scores": scores, "alignment": [], "data_sha256": data, "encoder_sha256": encoder, "updates": updates}
    if lost is not None:
        (folder / "align" / "layer2").mkdir(parents=True)
        columns = {"lost_spikes": lost, "teacher_spikes": [2] * 8}
        (folder / "align" / "layer2" / "align.json").write_text(json.dumps({"by_utterance": columns}))
        rate = {"value": sum(lost) / 16}
        result["alignment"] = [
            {
                "exit": 2,
                "subset": "test",
                "spike_disagreement": rate,
                "spike_miss": rate,
                "offset": {"mean_ms": 10.0 * seed},
            }
        ]
    (folder / "result.json").write_text(json.dumps(result))


def judge(out, better, worse, **more):
    entry = {"claim": "it is so", "better": better, "worse": worse, **more}
    return Outcomes.read(out / "tiny", "test").judge(Claim.read(entry, ARMS))
