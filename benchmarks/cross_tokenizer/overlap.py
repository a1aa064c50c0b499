"""What the two tokenizers of each pair share, on 1,000 solutions of GSM8K."""

import re
from typing import Any

from pairs import pairs, solutions


def overlap() -> dict[str, Any]:
    """The ends of turns are not counted, nor are the calculator's annotations, as <<48/2=24>>."""
    text = [re.sub("<<.*?>>", "", each) for each in solutions(1000)]
    results = {}
    for pair in pairs():
        figures = pair.aligner([ids[:-1] for ids in pair.student_ids(text)]).figures
        results[pair.name] = {
            "shared by bytes, of the student's": pair.vocabulary.figures["vocab_overlap_bytes_student"],
            "boundaries shared, of the student's": 1 / figures["chunk_len_student"],
            "boundaries shared, of the teacher's": 1 / figures["chunk_len_teacher"],
            "chunks of one token on both sides": figures["one_to_one"],
            "coverage": figures["coverage"],
        }
        print(f"    {pair.name:<24}" + ", ".join(f"{name} {value:.2%}" for name, value in results[pair.name].items()))
    return results
