"""What capture costs an agent, and what redaction changes that it should not.

    python benchmarks/sdk_capture.py [SHARED]

Every event is `Session.attempt` with a text, a model, token counts and a duration, to a file in a temporary folder.
Printed are microseconds of an event on the caller's thread, wall and CPU: the median and the 99th percentile of single
calls, each as the median of the repeats with their range.

What redaction misses is measured on planted secrets of seeds that its rules were not tuned on (those were 1 to 18). It
was tuned on GSM8K and on names in Python packages, so that what it changes there is no independent measurement.

SHARED is the folder with `data/gsm8k` (default ../shared).
"""

import json
import random
import statistics
import string
import subprocess
import sys
import sysconfig
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import atlas.sdk as sdk
from atlas.sdk import detectors
from atlas.sdk.redaction import Redaction
from atlas.sdk.rules import is_random, rules_for

REPEATS = 7
EVENTS = 2000
IMPORTS = 15
PATTERNS = [r"ACME-\d{4,}", r"\bproject (?:falcon|osprey)\b"]
TOKEN = "h" + "f_" + "Q" * 34
CODE_FILES = 1500
CODE_SEEDS = (101, 102, 103)
CORPUS_SEEDS = range(1000, 1020)
CORPUS = Path(__file__).parents[1] / "tests" / "sdk"


def main() -> None:
    shared = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parents[2] / "shared")
    problems = [json.loads(line) for name in ("train", "test") for line in _lines(shared, name)]
    _show_import()
    _show_events(problems)
    _show_library()
    _show_changes(problems)
    _show_leaks()
    _show_random()


def _lines(shared: Path, name: str) -> list[str]:
    return (shared / "data" / "gsm8k" / f"{name}.jsonl").read_text().splitlines()


def _show_import() -> None:
    def milliseconds(code: str) -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-S", "-I", "-c", code], check=True)
        return (time.perf_counter() - start) * 1e3

    path = f"import sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r})"
    differences = [milliseconds(f"{path}; import atlas.sdk") - milliseconds(path) for _ in range(IMPORTS)]
    print(f"import atlas.sdk, as the difference of two processes: {_spread(differences)} ms\n")


def _show_events(problems: list[dict[str, str]]) -> None:
    solved = [f"{problem['question']}\n{problem['answer']}" for problem in problems]
    ordinary = [text for text in solved if 500 <= len(text) <= 1000][:EVENTS]
    long = ["\n".join(solved[start : start + 30])[:10_000] for start in range(0, 6000, 30)]
    secret = [f"{text[:300]} I call it with HF_TOKEN={TOKEN} and {text[300:]}" for text in ordinary[:500]]
    cases: list[tuple[str, Sequence[str], Sequence[str]]] = [
        (f"GSM8K, {_mean_length(ordinary)} characters", ordinary, ()),
        (f"the same, {len(PATTERNS)} patterns of one's own", ordinary, PATTERNS),
        (f"GSM8K, {_mean_length(long)} characters", long, ()),
        (f"a token in {_mean_length(secret)} characters", secret, ()),
    ]
    print(f"{'microseconds an event':44}{'wall: median':>22}{'99 %':>22}{'CPU: median':>22}{'99 %':>22}")
    for name, texts, patterns in cases:
        with tempfile.TemporaryDirectory() as folder:
            sdk.configure(folder=folder, patterns=patterns)
            rows = [_microseconds(texts) for _ in range(REPEATS + 1)][1:]  # the first repeat warms up
            assert sdk.status()["dropped"] == {}
        columns = [_spread(list(column)) for column in zip(*rows, strict=True)]
        print(f"{name:44}" + "".join(f"{column:>22}" for column in columns))
    print()


def _microseconds(texts: Sequence[str]) -> tuple[float, float, float, float]:
    with sdk.session(task="What is 6 times 7?") as session:

        def attempt(text: str) -> None:
            session.attempt(text, model="tiny-1", input_tokens=200, output_tokens=90, duration_seconds=0.25)

        wall = _each(attempt, texts, time.perf_counter_ns)
        cpu = _each(attempt, texts, time.thread_time_ns)
    return wall[len(wall) // 2], wall[len(wall) * 99 // 100], cpu[len(cpu) // 2], cpu[len(cpu) * 99 // 100]


def _each(call: Callable[[str], None], texts: Sequence[str], clock: Callable[[], int]) -> list[float]:
    """Sorted microseconds of single calls."""
    took = []
    for text in texts:
        start = clock()
        call(text)
        took.append((clock() - start) / 1e3)
    return sorted(took)


def _show_library() -> None:
    code = "import time; from atlas.sdk.redaction import Redaction; r = Redaction(); s = time.perf_counter()\n"
    code += "r.text('api_key: abc123def'); print((time.perf_counter() - s) * 1e3)"
    took = [
        float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout) for _ in range(5)
    ]
    print(f"the first text that may hold a token, once a process (imports detect-secrets): {_spread(took)} ms\n")


def _show_changes(problems: list[dict[str, str]]) -> None:
    redaction = Redaction()
    parts = [problem[part] for problem in problems for part in ("question", "answer")]
    looked_at = sum(bool(rules_for(text)) for text in parts)
    changed = sum(redaction.text(text) != text for text in parts)
    print(f"GSM8K: {changed} of {len(parts):,} questions and solutions are changed, {looked_at} are looked at closely")
    files = sorted(Path(sysconfig.get_path("purelib")).rglob("*.py"))
    for seed in CODE_SEEDS:
        chosen = random.Random(seed).sample(files, min(CODE_FILES, len(files)))
        lines = [line for file in chosen for line in file.read_text(errors="replace")[:20_000].splitlines()]
        wrong = sum(redaction.text(x).replace("[redacted:email]", "") != _without_emails(x) for x in lines)
        print(f"Python code, sample {seed}: {wrong} of {len(lines):,} lines are changed, e-mail addresses aside")
    print()


def _show_leaks() -> None:
    sys.path.insert(0, str(CORPUS))
    from secrets_corpus import planted

    corpus = [secret for seed in CORPUS_SEEDS for secret in planted(seed, rounds=2)]
    for library in (detectors.installed_version, lambda: None):
        detectors.installed_version = library
        redaction = Redaction()
        leaked = Counter(secret.kind for secret in corpus if secret.leaked(redaction.text(secret.text)))
        print(f"{redaction.name}: {leaked.total()} of {len(corpus):,} planted secrets are left {leaked.most_common()}")
    print()


def _without_emails(line: str) -> str:
    from atlas.sdk.rules import emails

    return emails(line).replace("[redacted:email]", "")


def _show_random() -> None:
    draw = random.Random(9)
    base62 = string.ascii_letters + string.digits
    for name, alphabet in (("letters and digits", base62), ("base64", base62 + "+/"), ("base64url", base62 + "-_")):
        found = {
            length: sum(is_random("".join(draw.choices(alphabet, k=length))) for _ in range(5000)) / 50
            for length in (20, 24, 32, 40, 64)
        }
        print(f"random {name:18} found: " + ", ".join(f"{share:.1f} % of {length}" for length, share in found.items()))


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})"


def _mean_length(texts: Sequence[str]) -> int:
    return round(statistics.mean(map(len, texts)))


if __name__ == "__main__":
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        main()
